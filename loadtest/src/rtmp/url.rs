//! `rtmp://host[:port]/app`: where to push. Pure.

use std::{fmt, str::FromStr};

/// Why a URL was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("a push URL begins with rtmp://, like rtmp://127.0.0.1:1935/app")]
    Scheme,
    #[error("user and password in a push URL are not supported")]
    Userinfo,
    #[error("a push URL names a host and, if any, a port from 1 to 65535: rtmp://127.0.0.1:1935/app")]
    Authority,
    #[error("a push URL names an app: rtmp://127.0.0.1:1935/app")]
    App,
}

/// A parsed push URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishUrl {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// Path and query as they are: `app`, `app/instance`, `app?t=token`.
    pub app: String,
    authority: String,
}

impl PublishUrl {
    /// The `tcUrl` of the connect command.
    pub fn tc_url(&self) -> String {
        format!("rtmp://{}/{}", self.authority, self.app)
    }

    /// Splits `rtmp://host/app/key` at the last `/` before any query: the form that has the key in the URL.
    pub fn split_key(url: &str) -> Option<(&str, &str)> {
        let path_end = url.find('?').unwrap_or(url.len());
        let slash = url.get(..path_end)?.rfind('/')?;
        let (app, key) = (url.get(..slash)?, url.get(slash + 1..)?);
        let path_start = app.find("://")? + 3;
        (app.get(path_start..)?.contains('/') && !key.is_empty()).then_some((app, key))
    }
}

impl FromStr for PublishUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        const DEFAULT_PORT: u16 = 1935;
        let rest = url.strip_prefix("rtmp://").ok_or(UrlError::Scheme)?;
        let (authority, app) = rest.split_once('/').ok_or(UrlError::App)?;
        if app.is_empty() {
            return Err(UrlError::App);
        }
        if authority.contains('@') {
            return Err(UrlError::Userinfo);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(UrlError::Authority)?,
            None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| UrlError::Authority)?,
            None if port.is_empty() => DEFAULT_PORT,
            None => return Err(UrlError::Authority),
        };
        if host.is_empty() || port == 0 {
            return Err(UrlError::Authority);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            app: app.to_owned(),
            authority: authority.to_owned(),
        })
    }
}

impl fmt::Display for PublishUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tc_url())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> Result<(String, u16, String), UrlError> {
        url.parse().map(|u: PublishUrl| (u.host, u.port, u.app))
    }

    #[test]
    fn host_port_and_app_are_told_apart() {
        let ok = |host: &str, port, app: &str| Ok((host.to_owned(), port, app.to_owned()));
        assert_eq!(parts("rtmp://127.0.0.1:1936/app"), ok("127.0.0.1", 1936, "app"));
        assert_eq!(
            parts("rtmp://origin.example/app?t=x"),
            ok("origin.example", 1935, "app?t=x")
        );
        assert_eq!(parts("rtmp://[::1]:1935/app/eu"), ok("::1", 1935, "app/eu"));
        assert_eq!(parts("http://a/app"), Err(UrlError::Scheme));
        assert_eq!(parts("rtmp://a"), Err(UrlError::App));
        assert_eq!(parts("rtmp://u:p@a/app"), Err(UrlError::Userinfo));
        for bad in [
            "rtmp://:1935/app",
            "rtmp://a:0/app",
            "rtmp://a:x/app",
            "rtmp://[::1/app",
            "rtmp://[::1]x/app",
        ] {
            assert_eq!(parts(bad), Err(UrlError::Authority), "{bad}");
        }
    }

    #[test]
    fn a_key_may_stand_at_the_end_of_the_url() {
        assert_eq!(PublishUrl::split_key("rtmp://a/app/key"), Some(("rtmp://a/app", "key")));
        assert_eq!(
            PublishUrl::split_key("rtmp://a/app/key?t=1/2"),
            Some(("rtmp://a/app", "key?t=1/2"))
        );
        assert_eq!(PublishUrl::split_key("rtmp://a/app"), None);
        assert_eq!(PublishUrl::split_key("rtmp://a/app/"), None);
    }
}
