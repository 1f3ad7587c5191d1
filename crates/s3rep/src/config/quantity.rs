//! Durations and sizes as people write them.

use std::{fmt, time::Duration};

use serde::{Deserializer, de};

/// Reads `500ms`, `1s`, `1h30m`, `7d`, or a plain number of milliseconds as s3db.js has them.
pub(super) fn duration_from_text(text: &str) -> Option<Duration> {
    let units = [("ms", 1.0), ("s", 1e3), ("m", 60e3), ("h", 3_600e3), ("d", 86_400e3), ("w", 604_800e3)];
    let milliseconds = sum_of_parts(text, |unit| {
        units.iter().find(|(name, _)| *name == unit).map(|(_, milliseconds)| *milliseconds)
    })?;
    duration_from_milliseconds(milliseconds)
}

/// Reads `64MiB`, `10GB`, `512 kB`, or a plain number of bytes.
pub(super) fn size_from_text(text: &str) -> Option<u64> {
    let bytes = sum_of_parts(text, |unit| {
        let unit = unit.to_ascii_lowercase();
        let prefix = unit.strip_suffix('b')?;
        let (prefix, base) = match prefix.strip_suffix('i') {
            Some(prefix) => (prefix, 1024_f64),
            None => (prefix, 1000_f64),
        };
        let power = ["", "k", "m", "g", "t"].iter().position(|known| *known == prefix)?;
        // "iB" alone is no unit.
        if power == 0 && base > 1000.0 { None } else { Some(base.powi(i32::try_from(power).ok()?)) }
    })?;
    // Above 2^53 a float is not exact; nobody has such a disk.
    (bytes.fract() == 0.0 && bytes < 9_007_199_254_740_992.0).then_some(bytes as u64)
}

/// Numbers with units, added up; a number alone counts as 1 each.
fn sum_of_parts(text: &str, unit_of: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return text.starts_with(|c: char| c.is_ascii_digit()).then_some(number);
    }
    let mut rest = text;
    let mut sum = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        sum += number.parse::<f64>().ok()? * unit_of(unit)?;
        rest = after.trim_start();
    }
    (sum.is_finite()).then_some(sum)
}

fn duration_from_milliseconds(milliseconds: f64) -> Option<Duration> {
    // A hundred years: more overflows the arithmetic of clocks.
    if !(0.0..=3.2e12).contains(&milliseconds) {
        return None;
    }
    Some(Duration::from_nanos((milliseconds * 1e6).round() as u64))
}

struct Quantity<T> {
    expected: &'static str,
    from_text: fn(&str) -> Option<T>,
    from_number: fn(f64) -> Option<T>,
}

impl<T> de::Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        (self.from_number)(number)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Float(number), &self.expected))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.from_text)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self.expected))
    }
}

/// A duration; zero is fine.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(Quantity {
        expected: "a duration such as 500ms, 10s, 5m, 12h or 7d (a plain number is milliseconds)",
        from_text: duration_from_text,
        from_number: duration_from_milliseconds,
    })
}

/// A duration above zero.
pub(super) fn positive_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(Quantity {
        expected: "a duration above zero such as 500ms, 10s, 5m, 12h or 7d (a plain number is milliseconds)",
        from_text: |text| duration_from_text(text).filter(|duration| !duration.is_zero()),
        from_number: |number| duration_from_milliseconds(number).filter(|duration| !duration.is_zero()),
    })
}

/// As [`positive_duration`], for an option that may be absent.
pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    positive_duration(deserializer).map(Some)
}

/// A number of bytes above zero.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(Quantity {
        expected: "a size such as 64MiB or 10GB (a plain number is bytes)",
        from_text: |text| size_from_text(text).filter(|bytes| *bytes > 0),
        from_number: |number| size_from_text(&number.to_string()).filter(|bytes| *bytes > 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("1s", 1_000),
            ("1.5s", 1_500),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("7d", 604_800_000),
            ("2w", 1_209_600_000),
            ("30000", 30_000),
            (" 10 s ", 10_000),
            ("0", 0),
        ] {
            assert_eq!(duration_from_text(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1 fortnight", "NaN", "inf", "1s2", "9999999d", "1..2s", "+1"] {
            assert_eq!(duration_from_text(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1024", 1024),
            ("64MiB", 64 << 20),
            ("10GB", 10_000_000_000),
            ("512 kB", 512_000),
            ("1.5KiB", 1536),
            ("7B", 7),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(size_from_text(text), Some(bytes), "{text}");
        }
        for text in ["", "GB", "10G", "1iB", "-1", "1.5", "0.0001kB", "99999999TB", "NaN"] {
            assert_eq!(size_from_text(text), None, "{text}");
        }
    }
}
