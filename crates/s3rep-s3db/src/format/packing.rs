//! Packed forms of texts with a fixed shape: uuid, datetime, mac and the like.
//!
//! Packing expects the normalised form of its type; a text that is not of the shape is stored as it is.

use super::{
    number::{padded62, parse_signed62, parse_unsigned62},
    time,
};
use serde_json::Value;

/// A type whose texts are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Uuid,
    DateTime,
    DateOnly,
    TimeOnly,
    Mac,
    Cidr,
    Semver,
    Phone,
    Color,
    Duration,
    Ean,
}

impl Packing {
    /// The packing of a definition: by its first word, or for dates by a word anywhere in it.
    pub(super) fn of(definition: &str) -> Option<Self> {
        let word = definition.split('|').next().unwrap_or_default();
        Some(match word {
            "uuid" => Self::Uuid,
            _ if definition.contains("datetime") => Self::DateTime,
            _ if definition.contains("dateonly") => Self::DateOnly,
            "timeonly" => Self::TimeOnly,
            "mac" => Self::Mac,
            "cidr" => Self::Cidr,
            "semver" => Self::Semver,
            "phone" => Self::Phone,
            "color" => Self::Color,
            "duration" => Self::Duration,
            "ean" => Self::Ean,
            _ => return None,
        })
    }

    /// The packed form; `None` when the text does not have the normalised shape.
    pub(super) fn pack(self, text: &str) -> Option<String> {
        match self {
            Self::Uuid => {
                let hex: String = text.chars().filter(|c| *c != '-').collect();
                if hex.len() != 32 || text.len() != 36 {
                    return None;
                }
                let n = parse_hex(&hex)?;
                let groups = [n >> 96, n >> 64, n >> 32, n].map(|group| group & 0xffff_ffff);
                Some(groups.iter().map(|group| padded62(u64::try_from(*group).unwrap_or(0), 6)).collect())
            }
            Self::DateTime => time::instant(&Value::from(text)).map(signed62),
            Self::DateOnly => time::day(&Value::from(text)).map(signed62),
            Self::TimeOnly => time::time_of_day(text).map(signed62),
            Self::Mac => {
                let hex: String = text.split(':').collect();
                let fit = text.len() == 17 && hex.len() == 12;
                if fit { Some(padded62(u64::try_from(parse_hex(&hex)?).ok()?, 9)) } else { None }
            }
            Self::Cidr => {
                let (address, prefix) = text.split_once('/')?;
                let prefix: u64 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
                Some(padded62(u64::from(ip4(address)?), 6) + &padded62(prefix, 1))
            }
            Self::Semver => {
                let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
                let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()??);
                if parts.next().is_some() {
                    return None;
                }
                let sum = major
                    .checked_mul(1_000_000)?
                    .checked_add(minor.checked_mul(1000)?)?
                    .checked_add(patch)?;
                (sum <= 1 << 53).then(|| unsigned62(sum))
            }
            Self::Phone => {
                let digits = text.strip_prefix('+')?;
                digits.parse::<u64>().ok().filter(|n| *n <= 1 << 53).map(unsigned62)
            }
            Self::Color => {
                let hex = text.strip_prefix('#').filter(|hex| hex.len() == 6)?;
                Some(padded62(u64::try_from(parse_hex(hex)?).ok()?, 5))
            }
            Self::Duration => time::duration(&Value::from(text)).map(signed62),
            Self::Ean => {
                let mark = ean_mark(text.len()).filter(|_| text.bytes().all(|b| b.is_ascii_digit()))?;
                Some(format!("{mark}{}", padded62(text.parse().ok()?, 1)))
            }
        }
    }

    /// The text of a packed form; `None` when it is none, and the stored text stands for itself.
    pub(super) fn unpack(self, text: &str) -> Option<String> {
        match self {
            Self::Uuid => {
                if text.len() != 24 || text.contains('-') {
                    return None;
                }
                let group =
                    |at: usize| parse_unsigned62(text.get(at..at + 6)?).and_then(|n| u32::try_from(n).ok());
                let (a, b, c, d) = (group(0)?, group(6)?, group(12)?, group(18)?);
                let (b, c) = ((b >> 16, b & 0xffff), (c >> 16, c & 0xffff));
                Some(format!("{a:08x}-{:04x}-{:04x}-{:04x}-{:04x}{d:08x}", b.0, b.1, c.0, c.1))
            }
            Self::DateTime => parse_signed62(text).and_then(time::iso),
            Self::DateOnly => parse_signed62(text).and_then(time::date),
            Self::TimeOnly => parse_signed62(text).filter(|ms| (0..86_400_000).contains(ms)).map(time::clock),
            Self::Mac => {
                let n = if text.len() == 9 { parse_unsigned62(text)? } else { return None };
                let byte = |at: u32| (n >> at) & 0xff;
                (n < 1 << 48).then(|| {
                    let [a, b, c, d, e, f] = [40, 32, 24, 16, 8, 0].map(byte);
                    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
                })
            }
            Self::Cidr => {
                if text.len() != 7 {
                    return None;
                }
                let address = u32::try_from(parse_unsigned62(text.get(..6)?)?).ok()?;
                let prefix = parse_unsigned62(text.get(6..)?)?;
                let [a, b, c, d] = address.to_be_bytes();
                Some(format!("{a}.{b}.{c}.{d}/{prefix}"))
            }
            Self::Semver => {
                let n = nonempty62(text)?;
                Some(format!("{}.{}.{}", n / 1_000_000, n / 1000 % 1000, n % 1000))
            }
            Self::Phone => Some(format!("+{}", nonempty62(text)?)),
            Self::Color => {
                let n = nonempty62(text).filter(|n| *n < 1 << 24 && text.len() == 5)?;
                Some(format!("#{n:06x}"))
            }
            Self::Duration => parse_signed62(text).and_then(time::duration_text),
            Self::Ean => {
                if (8..=14).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                let (mark, digits) = text.split_at_checked(1)?;
                let width = match mark {
                    "0" => 8,
                    "1" => 13,
                    "2" => 12,
                    "3" => 14,
                    _ => return None,
                };
                Some(format!("{:0width$}", nonempty62(digits)?))
            }
        }
    }
}

fn signed62(n: i64) -> String {
    let sign = if n < 0 { "-" } else { "" };
    format!("{sign}{}", unsigned62(n.unsigned_abs()))
}

/// Base 62 that is not one of the two words that mean no value: those get a leading zero.
fn unsigned62(n: u64) -> String {
    let digits = padded62(n, 1);
    if matches!(digits.as_str(), "null" | "undefined") { format!("0{digits}") } else { digits }
}

fn nonempty62(text: &str) -> Option<u64> {
    if text.is_empty() { None } else { parse_unsigned62(text) }
}

fn parse_hex(hex: &str) -> Option<u128> {
    hex.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u128::from_str_radix(hex, 16).ok())?
}

fn ean_mark(length: usize) -> Option<char> {
    Some(match length {
        8 => '0',
        13 => '1',
        12 => '2',
        14 => '3',
        _ => return None,
    })
}

/// The 32 bits of `a.b.c.d`; leading zeros are allowed and decimal.
pub(super) fn ip4(text: &str) -> Option<u32> {
    let mut parts = text.split('.');
    let mut address = 0_u32;
    for _ in 0..4 {
        let part = parts
            .next()
            .filter(|part| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))?;
        address = address << 8 | u32::from(part.parse::<u8>().ok()?);
    }
    parts.next().is_none().then_some(address)
}

/// The 16 bytes of an IPv6 address, with `::` and a dotted tail, without a zone.
pub(super) fn ip6(text: &str) -> Option<[u8; 16]> {
    text.parse::<std::net::Ipv6Addr>().ok().map(|address| address.octets())
}

/// Lower case, the longest run of at least two zero groups (the first among equals) as `::`.
pub(super) fn ip6_text(bytes: [u8; 16]) -> String {
    let groups: Vec<u16> =
        bytes.chunks_exact(2).map(|pair| u16::from(pair[0]) << 8 | u16::from(pair[1])).collect();
    let (mut best, mut start) = (0..0, 0);
    for (at, group) in groups.iter().enumerate() {
        if *group != 0 {
            start = at + 1;
        } else if at + 1 - start > best.len() {
            best = start..at + 1;
        }
    }
    let text = |groups: &[u16]| groups.iter().map(|group| format!("{group:x}")).collect::<Vec<_>>().join(":");
    if best.len() < 2 {
        return text(&groups);
    }
    format!(
        "{}::{}",
        text(groups.get(..best.start).unwrap_or(&[])),
        text(groups.get(best.end..).unwrap_or(&[]))
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Packing; 11] = [
        Packing::Uuid,
        Packing::DateTime,
        Packing::DateOnly,
        Packing::TimeOnly,
        Packing::Mac,
        Packing::Cidr,
        Packing::Semver,
        Packing::Phone,
        Packing::Color,
        Packing::Duration,
        Packing::Ean,
    ];

    #[test]
    fn examples_of_the_format_specification() {
        for (packing, text, packed) in [
            (Packing::Uuid, "de305d54-75b4-431b-adb2-eb6b9e546014", "44h64c29DQ953bdCor2TLGIc"),
            (Packing::DateTime, "2024-01-02T03:04:05.678Z", "u0aFbhc"),
            (Packing::DateTime, "0001-01-01T00:00:00.000Z", "-hDVMHW1i"),
            (Packing::DateOnly, "2024-02-29", "594"),
            (Packing::TimeOnly, "12:34:00.000", "33OZq"),
            (Packing::Mac, "aa:bb:cc:dd:ee:ff", "0RiYGo9Lp"),
            (Packing::Cidr, "192.168.1.0/24", "3wK8b6o"),
            (Packing::Semver, "1.2.3", "4cFl"),
            (Packing::Phone, "+5511999999999", "1z2ASgSr"),
            (Packing::Color, "#ff5733", "18dhh"),
            (Packing::Duration, "PT1H30M", "mEMM"),
            (Packing::Ean, "4006381333931", "118x8XMN5"),
        ] {
            assert_eq!(packing.pack(text).as_deref(), Some(packed));
            assert_eq!(packing.unpack(packed).as_deref(), Some(text));
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".*|[-0-9a-zA-Z]{0,30}|[0-9a-f:./-]{0,40}") {
            for packing in ALL {
                packing.pack(&text);
                packing.unpack(&text);
            }
        }

        #[test]
        fn addresses_read_back(bytes in any::<[u8; 16]>(), zeros in any::<u16>()) {
            let mut bytes = bytes;
            for (at, byte) in bytes.iter_mut().enumerate() {
                if zeros >> at & 1 == 1 { *byte = 0; }
            }
            prop_assert_eq!(ip6(&ip6_text(bytes)), Some(bytes));
        }
    }
}
