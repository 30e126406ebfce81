//! A multivariant playlist for one viewer: its children stand below the viewer's ticket. Pure.
//!
//! Before this: `handle.rs`, with the body that all viewers share. After this: the response. Everything that the children
//! name is relative to them and inherits the ticket, so this is the only text that differs between viewers.

use bytes::Bytes;

/// How an attribute names a child.
const URI: &str = "URI=\"";

/// Puts `directory` (`../~<ticket>/d/`) before each relative address. What is not text is left as it is: players refuse it.
pub fn below(directory: &str, playlist: &Bytes) -> Bytes {
    let Ok(text) = std::str::from_utf8(playlist) else {
        return playlist.clone();
    };
    let mut moved = String::with_capacity(text.len() + 8 * (directory.len() + 1));
    for line in text.split_inclusive('\n') {
        if line.starts_with('#') {
            // Only the attribute's own name: not the end of another one's.
            match line.match_indices(URI).find(|(at, _)| follows_separator(line, *at)) {
                Some((at, _)) => {
                    let (before, value) = line.split_at(at + URI.len());
                    moved.push_str(before);
                    push(&mut moved, directory, value);
                }
                None => moved.push_str(line),
            }
        } else if line.trim().is_empty() {
            moved.push_str(line);
        } else {
            push(&mut moved, directory, line);
        }
    }
    moved.into()
}

fn follows_separator(line: &str, at: usize) -> bool {
    let before = line.as_bytes().get(..at).and_then(<[u8]>::last);
    before.is_some_and(|byte| matches!(byte, b':' | b',' | b' '))
}

fn push(moved: &mut String, directory: &str, address: &str) {
    if is_relative(address) {
        moved.push_str(directory);
    }
    moved.push_str(address);
}

/// Neither a scheme nor a path from the root (RFC 3986, section 4.2).
fn is_relative(address: &str) -> bool {
    let first = address.split(['/', '?', '#']).next().unwrap_or_default();
    !address.starts_with('/') && !first.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_move_and_everything_else_stays() {
        let playlist = "#EXTM3U\n#EXT-X-VERSION:9\n\
            #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"XURI=\",URI=\"audio.m3u8\"\n\
            #EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO=\"a\"\nvideo.m3u8\n\n\
            #EXT-X-STREAM-INF:BANDWIDTH=2\n/elsewhere/video.m3u8\n\
            #EXT-X-STREAM-INF:BANDWIDTH=3\nhttps://cdn.example.com/video.m3u8\r\n\
            #EXT-X-I-FRAME-STREAM-INF:URI=\"/i.m3u8\",BANDWIDTH=4\nlast.m3u8?x=a:b";
        let expected = playlist
            .replace("\"audio.m3u8", "\"../~t/d/audio.m3u8")
            .replace("\nvideo.m3u8\n", "\n../~t/d/video.m3u8\n")
            .replace("\nlast", "\n../~t/d/last");
        assert_eq!(below("../~t/d/", &playlist.into()), expected);
    }

    #[test]
    fn what_is_no_text_is_left_alone() {
        let bytes = Bytes::from_static(b"#EXTM3U\n\xFF\n");
        assert_eq!(below("~t/", &bytes), bytes);
    }
}
