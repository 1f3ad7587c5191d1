//! Text in object metadata: what HTTP headers cannot hold is encoded, what is frequent is shortened.

use std::{borrow::Cow, io::Read};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::DeflateDecoder;

use super::{dictionary, js};

/// What a compressed text may grow to.
const MAX_INFLATED: u64 = 64 << 20;

/// A metadata value, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// The text `null`.
    Null,
    /// The text `undefined`: the value is absent.
    Undefined,
    /// Text.
    Text(Cow<'a, str>),
}

/// Encodes a text as s3db.js does, quirks included.
pub fn encode(text: &str) -> Cow<'_, str> {
    if reserved(text) {
        return Cow::Owned(base64_form(text));
    }
    match dictionary::shorten(text) {
        Some(short) => Cow::Owned(short),
        None => encode_rest(text),
    }
}

/// Encodes a text so that every reader and every store gives it back: as [`encode`], but where that is lossy the
/// neighbouring form is used. That is the case for `font/woff2` (its code reads back as `failed`), non-ASCII
/// text after a dictionary prefix, and leading or trailing spaces, which HTTP trims.
pub(super) fn encode_lossless(text: &str) -> Cow<'_, str> {
    if text.starts_with(' ') || text.ends_with(' ') {
        return Cow::Owned(percent_form(text));
    }
    if reserved(text) {
        return Cow::Owned(base64_form(text));
    }
    match dictionary::shorten(text) {
        Some(short)
            if short.bytes().all(|b| matches!(b, b' '..=b'~'))
                && dictionary::expand(&short).as_deref() == Some(text) =>
        {
            Cow::Owned(short)
        }
        _ => encode_rest(text),
    }
}

fn reserved(text: &str) -> bool {
    ["d:", "u:", "b:", "z:", "z85:"].iter().any(|mark| text.starts_with(mark))
}

fn encode_rest(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let (mut ascii, mut latin, mut other) = (0_usize, 0_usize, 0_usize);
    for unit in text.encode_utf16() {
        match unit {
            0x20..=0x7e => ascii += 1,
            0x80..=0xff => latin += 1,
            _ => other += 1,
        }
    }
    // M / len > 0.3, or L / len > 0.5, without division
    let total = ascii + latin + other;
    let dense = if other > 0 { other * 10 > total * 3 } else { latin * 2 > total };
    Cow::Owned(if dense { base64_form(text) } else { percent_form(text) })
}

fn base64_form(text: &str) -> String {
    format!("b:{}", STANDARD.encode(text))
}

fn percent_form(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len() * 2 + 2);
    out.push_str("u:");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

/// Decodes a metadata value. What cannot be decoded stays as it is.
pub fn decode(text: &str) -> Decoded<'_> {
    match text {
        "null" => return Decoded::Null,
        "undefined" => return Decoded::Undefined,
        _ => {}
    }
    let decoded = match text.as_bytes() {
        [b'd' | b'u' | b'b' | b'z', b':'] => None,
        [b'd', b':', ..] => dictionary::expand(text).map(Cow::Owned),
        [b'u', b':', ..] => percent_decode(text.get(2..).unwrap_or_default()).map(Cow::Owned),
        [b'b', b':', ..] => {
            let bytes = lenient_base64(text.get(2..).unwrap_or_default());
            Some(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()))
        }
        [b'z', b':', ..] => inflate(&lenient_base64(text.get(2..).unwrap_or_default())).map(Cow::Owned),
        [b'z', b'8', b'5', b':', ..] => {
            text.get(4..).and_then(parse_base85).and_then(|bytes| inflate(&bytes)).map(Cow::Owned)
        }
        _ => None,
    };
    Decoded::Text(decoded.unwrap_or(Cow::Borrowed(text)))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut hex = || rest.next().and_then(|b| char::from(b).to_digit(16));
        bytes.push(u8::try_from(hex()? * 16 + hex()?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// Base64 as Node reads it: foreign characters are skipped, the URL-safe letters are known, padding ends it.
pub(super) fn lenient_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in text.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => break,
            _ => continue,
        };
        bits = (bits << 6) | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap_or(0));
            bits &= (1 << count) - 1;
        }
    }
    bytes
}

fn inflate(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    let mut reader = DeflateDecoder::new(bytes).take(MAX_INFLATED + 1);
    reader.read_to_end(&mut out).ok()?;
    if u64::try_from(out.len()).ok()? > MAX_INFLATED || out.is_empty() {
        return None;
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// The digits of base 85: printable ASCII from `!` up, without `"`, `'`, `\` and the backquote.
fn base85_digits() -> impl Iterator<Item = u8> {
    (b'!'..=b'~').filter(|b| !b"\"'\\`".contains(b)).take(85)
}

/// Base 85: four bytes become five digits, a tail of k bytes k + 1 digits.
pub fn base85(bytes: &[u8]) -> String {
    let digits: Vec<u8> = base85_digits().collect();
    let mut out = String::with_capacity(bytes.len() / 4 * 5 + 5);
    for chunk in bytes.chunks(4) {
        let mut padded = [0_u8; 4];
        padded.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        let mut value = u32::from_be_bytes(padded);
        let mut five = ['!'; 5];
        for digit in five.iter_mut().rev() {
            *digit = digits.get((value % 85) as usize).copied().map_or('!', char::from);
            value /= 85;
        }
        out.extend(five.iter().take(chunk.len() + 1));
    }
    out
}

/// Reads base 85.
pub fn parse_base85(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = base85_digits().collect();
    let mut bytes = Vec::with_capacity(text.len() / 5 * 4 + 4);
    for chunk in text.as_bytes().chunks(5) {
        if chunk.len() == 1 {
            return None;
        }
        let mut value = 0_u64;
        for i in 0..5 {
            // a short tail is filled with the highest digit
            let digit = match chunk.get(i) {
                Some(byte) => digits.iter().position(|digit| digit == byte)? as u64,
                None => 84,
            };
            value = value * 85 + digit;
        }
        let value = u32::try_from(value).ok()?;
        bytes.extend(value.to_be_bytes().into_iter().take(chunk.len() - 1));
    }
    Some(bytes)
}

/// A metadata key: characters outside `[A-Za-z0-9_-]` become `_`, the rest lower case.
pub(super) fn key(name: &str) -> String {
    // JavaScript replaces code units: a character outside the basic plane gives two underscores
    let mut key = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
            key.push(c.to_ascii_lowercase());
        } else {
            (0..c.len_utf16()).for_each(|_| key.push('_'));
        }
    }
    key
}

/// Bytes of a text as s3db.js counts them.
pub(super) fn bytes(text: &str) -> usize {
    text.len()
}

/// Whether a text is one that comes back as something else than text: JSON is parsed, two words mean nothing.
pub(super) fn is_json(text: &str) -> bool {
    (text.starts_with('{') || text.starts_with('[')) && js::length(text) > 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_text_reads_back_and_is_fit_for_a_header(text in "\\PC*|.*|(https://|/api/|https://www\\.)\\PC*| *x *") {
            let encoded = encode_lossless(&text);
            prop_assert!(encoded.bytes().all(|b| matches!(b, b' '..=b'~')), "{encoded}");
            prop_assert!(!encoded.starts_with(' ') && !encoded.ends_with(' '));
            if text != "null" && text != "undefined" {
                prop_assert_eq!(decode(&encoded), Decoded::Text(Cow::Borrowed(text.as_str())));
            }
        }

        #[test]
        fn decoding_never_panics(text in "(d:|u:|b:|z:|z85:)?.*") {
            decode(&text);
        }

        #[test]
        fn base85_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(parse_base85(&base85(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn compressed_text_is_inflated_within_bounds() {
        use std::io::Write;
        let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(&vec![b'x'; 70 << 20]).unwrap();
        let bomb = format!("z:{}", STANDARD.encode(writer.finish().unwrap()));
        assert_eq!(decode(&bomb), Decoded::Text(Cow::Borrowed(bomb.as_str())));

        let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(b"some text, some text").unwrap();
        let packed = writer.finish().unwrap();
        for stored in [format!("z:{}", STANDARD.encode(&packed)), format!("z85:{}", base85(&packed))] {
            assert_eq!(decode(&stored), Decoded::Text(Cow::Borrowed("some text, some text")));
        }
    }
}
