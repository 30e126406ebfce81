//! Reading a node's YAML: typed values, every fault told with file, line, key and what was expected.

use std::{fmt, net::SocketAddr, path::Path, str::FromStr, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned},
};

/// Largest configuration file, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// A key whose value is of the right type and makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Dotted: `packaging.part_target`.
    pub key: String,
    /// What would be right.
    pub expected: String,
}

impl Fault {
    pub fn new(key: &str, expected: &str) -> Self {
        Self {
            key: key.to_owned(),
            expected: expected.to_owned(),
        }
    }
}

/// Checks across values, all at once.
pub trait Validate {
    fn validate(&self) -> Vec<Fault>;
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{file}: can't be read: {why}")]
    Read { file: String, why: std::io::Error },
    #[error("{0}: larger than 1 MiB, that is no configuration")]
    TooLarge(String),
    /// The message points at line and column.
    #[error("{file}: {message}")]
    Form { file: String, message: String },
    #[error("{file}:\n{}", list(.text, .faults))]
    Faults {
        file: String,
        text: String,
        faults: Vec<Fault>,
    },
}

fn list(text: &str, faults: &[Fault]) -> String {
    let line = |fault: &Fault| {
        let at = line_of(text, &fault.key).map_or(String::new(), |n| format!("line {n}: "));
        format!("  {at}{}: expected {}", fault.key, fault.expected)
    };
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The line on which a dotted key stands: its steps one inside another. A key that is left at its default stands nowhere;
/// then the nearest section it would be in, if any.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut steps = key.split('.').peekable();
    let mut found = None;
    // Indentation of the section found so far, and of what stands directly in it.
    let (mut section, mut children) = (None, Some(0));
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let indent = line.len() - content.len();
        if section.is_some_and(|section| indent <= section) {
            break;
        }
        let Some(step) = steps.peek() else { break };
        let is_step = content
            .strip_prefix(*step)
            .is_some_and(|rest| rest.trim_start().starts_with(':'));
        if indent == *children.get_or_insert(indent) && is_step {
            found = Some(number + 1);
            (section, children) = (Some(indent), None);
            steps.next();
        }
    }
    found
}

/// Reads and validates a file.
pub fn load<T: DeserializeOwned + Validate>(path: &Path) -> Result<T, ConfigError> {
    let file = path.display().to_string();
    let read = |why| ConfigError::Read {
        file: file.clone(),
        why,
    };
    if std::fs::metadata(path).map_err(read)?.len() > FILE_LIMIT {
        return Err(ConfigError::TooLarge(file));
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    parse(&file, &text)
}

/// Reads and validates a text; `file` is for the messages.
pub fn parse<T: DeserializeOwned + Validate>(file: &str, text: &str) -> Result<T, ConfigError> {
    let value: T = serde_yaml::from_str(text).map_err(|error| ConfigError::Form {
        file: file.to_owned(),
        // The parser knows only the text.
        message: error.to_string().replace("<input>", file),
    })?;
    let faults = value.validate();
    if faults.is_empty() {
        Ok(value)
    } else {
        Err(ConfigError::Faults {
            file: file.to_owned(),
            text: text.to_owned(),
            faults,
        })
    }
}

/// Reads a listening address, for `#[serde(deserialize_with)]`: says what one looks like if it is none.
pub fn listen_address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    let expected = || de::Error::custom(format!("`{text}`: expected an address and a port, like 0.0.0.0:8080"));
    text.parse().map_err(|_| expected())
}

/// A length of time with its unit: `250ms`, `2s`, `5m`, `6h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HumanDuration(pub Duration);

/// A number of bytes with its unit: `64KiB`, `512MiB`, `8GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

/// A value that is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}`: expected {expected}")]
pub struct BadValue {
    found: String,
    expected: &'static str,
}

fn with_unit(text: &str, units: &[(&str, u64)], expected: &'static str) -> Result<u64, BadValue> {
    let bad = || BadValue {
        found: text.to_owned(),
        expected,
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(bad)?.1;
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(scale).ok_or_else(bad)
}

const TIME_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

impl FromStr for HumanDuration {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        with_unit(text, &TIME_UNITS, "a number with ms, s, m or h, like 250ms or 2s")
            .map(|ms| Self(Duration::from_millis(ms)))
    }
}

impl FromStr for ByteSize {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        with_unit(text, &SIZE_UNITS, "a number with B, KiB, MiB or GiB, like 512MiB").map(Self)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms.is_multiple_of(1000) {
            write!(f, "{}s", ms / 1000)
        } else {
            write!(f, "{ms}ms")
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS.iter().rev().find(|(_, scale)| self.0.is_multiple_of(*scale));
        let (name, scale) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / scale)
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = BadValue;
            fn try_from(text: String) -> Result<Self, BadValue> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
as_text!(HumanDuration, ByteSize);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        packaging: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        part_target: HumanDuration,
    }

    impl Validate for Sample {
        fn validate(&self) -> Vec<Fault> {
            if self.packaging.part_target.0 < Duration::from_millis(100) {
                vec![Fault::new("packaging.part_target", "100ms to 2s")]
            } else {
                vec![]
            }
        }
    }

    #[test]
    fn values_carry_units() {
        assert_eq!("250ms".parse::<HumanDuration>().unwrap().0, Duration::from_millis(250));
        assert_eq!("6h".parse::<HumanDuration>().unwrap().0, Duration::from_secs(21_600));
        assert_eq!("8GiB".parse::<ByteSize>().unwrap().0, 8 << 30);
        assert_eq!(ByteSize(512 << 20).to_string(), "512MiB");
        assert_eq!(HumanDuration(Duration::from_millis(333)).to_string(), "333ms");
        for bad in ["", "5", "s", "-1s", "1.5s", "99999999999999999999h", "5 parsecs"] {
            assert!(bad.parse::<HumanDuration>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fault_names_file_line_key_and_expectation() {
        let text = "# comment\npackaging:\n  part_target: 20ms\n";
        let error = parse::<Sample>("origin.yaml", text).unwrap_err().to_string();
        assert_eq!(
            error,
            "origin.yaml:\n  line 3: packaging.part_target: expected 100ms to 2s"
        );
    }

    #[test]
    fn a_key_is_looked_for_in_its_own_section() {
        let text = "edge:\n  https:\n    listen: x\n  # key: no\n  cache: { max_bytes: 1B }\norigin:\n  key: a\n";
        for (key, line) in [
            ("edge.https.key", Some(2)),
            ("edge.key", Some(1)),
            ("edge.cache.max_bytes", Some(5)),
            ("origin.key", Some(7)),
            ("key", None),
            ("listen", None),
        ] {
            assert_eq!(line_of(text, key), line, "{key}");
        }
    }

    #[test]
    fn a_wrong_form_points_at_its_line() {
        for text in [
            "packaging:\n  part_target: soon\n",
            "packaging:\n  part_target: 2s\n  part_tarket: 2s\n",
        ] {
            let error = parse::<Sample>("origin.yaml", text).unwrap_err().to_string();
            assert!(error.starts_with("origin.yaml: "), "{error}");
            assert!(
                error.contains("line 2") || error.contains("line 3") || error.contains(":3:"),
                "{error}"
            );
        }
    }
}
