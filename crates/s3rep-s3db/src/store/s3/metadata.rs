//! Metadata on the wire: headers, which are ASCII when they are ours and anything when they are not.

use aws_smithy_runtime_api::http::Headers;
use base64::{Engine, engine::general_purpose::STANDARD};
use s3rep_core::{Error, ErrorKind, Result, Scope};

use super::Bucket;

const HEADER: &str = "x-amz-meta-";

impl Bucket {
    /// Refuses metadata that the server would refuse, or give back changed.
    pub(super) fn check_metadata(&self, metadata: &[(String, String)]) -> Result<()> {
        let size: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        let capacity = self.metadata_capacity;
        if size > capacity {
            return Err(Error::new(ErrorKind::TooLarge, "the record's metadata is larger than S3 takes")
                .with_scope(Scope::Record)
                .with_context("bytes", size)
                .with_context("limit", capacity)
                .with_advice(
                    "give the resource the behavior 'body-overflow' or 'body-only', which store what does not \
                     fit in the object's body",
                ));
        }
        for (key, value) in metadata {
            if let Some(problem) = problem(key, value) {
                return Err(Error::new(ErrorKind::InvalidValue, problem)
                    .with_scope(Scope::Record)
                    .with_context("metadata key", key)
                    .with_advice("the record's object would not be read back as it was written"));
            }
        }
        Ok(())
    }
}

/// Why a member cannot be a header that comes back as it went.
fn problem(key: &str, value: &str) -> Option<&'static str> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !key.bytes().all(is_token) {
        return Some("a metadata key is no name of an HTTP header");
    }
    if !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Some("a metadata value is not printable ASCII");
    }
    if value.starts_with(' ') || value.ends_with(' ') {
        return Some("a metadata value begins or ends with a space, which HTTP drops");
    }
    if value.contains("=?") && decode_words(value).is_some() {
        return Some("a metadata value looks like an encoded word of RFC 2047");
    }
    None
}

/// A key as it was written. Ceph gives `_` back as `-`; keys that begin with `_` are s3db.js's own (`_v`,
/// `_overflow`), those of attributes have neither. Other keys of attributes that nobody declared stay as they are.
pub(super) fn name(mut key: String) -> String {
    if key.strip_prefix('-').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
        key.replace_range(..1, "_");
    }
    key
}

/// A value as it was before HTTP: RFC 2047 decoded, as AWS encodes what is not ASCII. An encoded word of ASCII
/// is nobody's encoding but a text that looks like one: it stays.
pub(super) fn decode(value: String) -> String {
    if value.contains("=?") { decode_words(&value).unwrap_or(value) } else { value }
}

fn decode_words(value: &str) -> Option<String> {
    let mut decoded = String::new();
    // Bytes of words that follow each other: a character may be spread over two.
    let (mut bytes, mut latin) = (Vec::new(), false);
    let mut rest = value;
    while let Some(start) = rest.find("=?") {
        let (before, at) = rest.split_at(start);
        let Some((word, is_latin, after)) = word(at) else {
            flush(&mut decoded, &mut bytes, latin);
            decoded.push_str(before);
            decoded.push_str("=?");
            rest = &at[2..];
            continue;
        };
        // Space between two words is not part of the text.
        if bytes.is_empty() || !before.bytes().all(|byte| byte == b' ') || is_latin != latin {
            let only_space = !bytes.is_empty() && before.trim().is_empty();
            flush(&mut decoded, &mut bytes, latin);
            decoded.push_str(if only_space { "" } else { before });
        }
        latin = is_latin;
        bytes.extend(word);
        rest = after;
    }
    flush(&mut decoded, &mut bytes, latin);
    decoded.push_str(rest);
    (!decoded.is_ascii()).then_some(decoded)
}

fn flush(decoded: &mut String, bytes: &mut Vec<u8>, latin: bool) {
    if latin {
        decoded.extend(bytes.iter().map(|byte| char::from(*byte)));
    } else {
        decoded.push_str(&String::from_utf8_lossy(bytes));
    }
    bytes.clear();
}

/// The bytes of the encoded word at the beginning, whether they are Latin-1, and what follows.
fn word(text: &str) -> Option<(Vec<u8>, bool, &str)> {
    let (charset, rest) = text.strip_prefix("=?")?.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let (content, after) = rest.split_once("?=")?;
    let latin = match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "us-ascii" => false,
        "iso-8859-1" => true,
        _ => return None,
    };
    let bytes = match encoding {
        "B" | "b" => STANDARD.decode(content).ok()?,
        "Q" | "q" => quoted(content)?,
        _ => return None,
    };
    Some((bytes, latin, after))
}

fn quoted(content: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(content.len());
    let mut rest = content.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => b' ',
            b'=' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    Some(bytes)
}

/// Headers of metadata that are not UTF-8, which the SDK refuses, become encoded words of what they say in
/// Latin-1: that is what HTTP's headers were.
pub(super) fn make_readable(headers: &mut Headers) {
    let unreadable: Vec<(String, String)> = headers
        .iter_bytes()
        .filter(|(name, value)| name.starts_with(HEADER) && str::from_utf8(value).is_err())
        .map(|(name, value)| (name.to_owned(), format!("=?ISO-8859-1?B?{}?=", STANDARD.encode(value))))
        .collect();
    for (name, value) in unreadable {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_of_others_are_decoded() {
        for (stored, text) in [
            ("=?UTF-8?B?w7HDoW5kw7o=?=", "ñándú"),
            ("=?utf-8?q?=C3=B1and=C3=BA_x?= tail", "ñandú x tail"),
            ("head =?UTF-8?B?w7E=?= mid =?UTF-8?B?w7E=?=", "head ñ mid ñ"),
            // One character over two words.
            ("=?UTF-8?B?8J8=?= =?UTF-8?B?mIA=?=", "😀"),
            ("=?UTF-8?Q?=C3=A9?= =?ISO-8859-1?Q?=E9?=", "éé"),
            ("=? =?UTF-8?Q?=C3=A9?=", "=? é"),
            // These are texts.
            ("=?UTF-8?Q?abc?=", "=?UTF-8?Q?abc?="),
            ("=?UTF-8?B?", "=?UTF-8?B?"),
            ("=?KOI8-R?B?w7E=?=", "=?KOI8-R?B?w7E=?="),
            ("a=?b", "a=?b"),
            ("", ""),
        ] {
            assert_eq!(decode(stored.to_owned()), text, "{stored}");
        }
    }

    #[test]
    fn keys_that_ceph_changed_are_put_right() {
        for (read, written) in
            [("-v", "_v"), ("_v", "_v"), ("0", "0"), ("-my-field", "-my-field"), ("a-b", "a-b")]
        {
            assert_eq!(name(read.to_owned()), written);
        }
    }

    #[test]
    fn what_would_come_back_changed_is_refused() {
        for value in [" a", "a ", "é", "a\tb", "a\nb", "\u{7f}", "=?UTF-8?B?w7E=?="] {
            assert!(problem("k", value).is_some(), "{value:?}");
        }
        for value in ["", "a  b", "=?UTF-8?Q?abc?=", "d:c", "~!@#$%^&*()_+{}|:\"<>?"] {
            assert_eq!(problem("_v", value), None, "{value:?}");
        }
        assert!(problem("a b", "x").is_some() && problem("é", "x").is_some());
    }
}
