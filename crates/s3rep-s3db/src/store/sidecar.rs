//! The `.meta.json` file beside every body: what s3db.js writes, member by member, and a tolerant reader.

use std::{fmt, io::Read};

use bytes::Bytes;
use md5::{Digest, Md5};
use s3rep_core::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::Value;

use crate::format::StoredObject;

/// What s3db.js writes when an object has no content type.
const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// The largest body that a compressed file may unpack to: s3db.js's own limit for an object.
const MAX_UNPACKED: u64 = 5 << 30;

/// The members in the order in which s3db.js writes them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    metadata: MetadataRef<'a>,
    content_type: &'a str,
    etag: String,
    last_modified: String,
    size: usize,
    content_length: usize,
    compressed: bool,
    expires_at: Option<u64>,
    body: BodyRef<'a>,
}

/// A Node.js buffer as `JSON.stringify` prints it.
#[derive(Serialize)]
struct BodyRef<'a> {
    r#type: &'static str,
    data: &'a [u8],
}

/// Metadata in the order of a JavaScript object: integer names first, ascending, then as given.
struct MetadataRef<'a>(&'a [(String, String)]);

impl Serialize for MetadataRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members: Vec<&(String, String)> = self.0.iter().collect();
        members.sort_by_key(|(name, _)| array_index(name).map_or((1, 0), |index| (0, index)));
        let mut map = serializer.serialize_map(Some(members.len()))?;
        for (name, value) in members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The number when a name is a canonical array index of JavaScript.
fn array_index(name: &str) -> Option<u32> {
    let index = name.parse::<u32>().ok().filter(|index| *index != u32::MAX)?;
    (index.to_string() == name).then_some(index)
}

/// The text of the sidecar of an object written now.
pub(super) fn write(object: &StoredObject, now: Timestamp) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec_pretty(&Written {
        metadata: MetadataRef(&object.metadata),
        content_type: object.content_type.as_deref().unwrap_or(DEFAULT_CONTENT_TYPE),
        etag: md5_hex(&object.body),
        last_modified: now.to_string(),
        size: object.body.len(),
        content_length: object.body.len(),
        compressed: false,
        expires_at: None,
        body: BodyRef { r#type: "Buffer", data: &object.body },
    })
}

fn md5_hex(bytes: &[u8]) -> String {
    use fmt::Write;
    if bytes.is_empty() {
        return "d41d8cd98f00b204e9800998ecf8427e".to_owned();
    }
    Md5::digest(bytes).iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What reading needs of a sidecar; other members are passed over, missing ones are not checked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sidecar {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    etag: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    compressed: bool,
}

#[derive(Default)]
struct Metadata(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or(16));
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    match value {
                        Value::String(text) => members.push((name, text)),
                        Value::Null => {}
                        other => members.push((name, other.to_string())),
                    }
                }
                Ok(Metadata(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Why a body and a sidecar make no object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// They do not belong together: a writer is between its two renames.
    Mismatch,
    /// They do, but the compressed body cannot be unpacked.
    Unpack,
}

impl Sidecar {
    pub(super) fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }

    /// The body is known to be empty, without looking at it.
    pub(super) fn says_empty(&self) -> bool {
        self.size == Some(0)
    }

    /// Puts the object together; the body must be the one that the sidecar was written for.
    pub(super) fn with_body(self, body: Vec<u8>) -> Result<StoredObject, Unfit> {
        if self.size.is_some_and(|size| size != body.len() as u64)
            || (!body.is_empty() && self.etag.as_deref().is_some_and(|etag| !same_etag(etag, &body)))
        {
            return Err(Unfit::Mismatch);
        }
        let body = if self.compressed && !body.is_empty() { unpack(&body)? } else { body };
        Ok(StoredObject {
            metadata: self.metadata.0,
            body: Bytes::from(body),
            content_type: self.content_type,
        })
    }
}

/// Multipart tags (`…-3`) are no digests and are believed.
fn same_etag(etag: &str, body: &[u8]) -> bool {
    let etag = etag.trim_matches('"');
    etag.len() != 32 || etag.eq_ignore_ascii_case(&md5_hex(body))
}

fn unpack(body: &[u8]) -> Result<Vec<u8>, Unfit> {
    let mut unpacked = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(body).take(MAX_UNPACKED + 1);
    match reader.read_to_end(&mut unpacked) {
        Ok(_) if unpacked.len() as u64 <= MAX_UNPACKED => Ok(unpacked),
        _ => Err(Unfit::Unpack),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(metadata: &[(&str, &str)], body: &'static [u8]) -> StoredObject {
        StoredObject {
            metadata: metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            body: Bytes::from_static(body),
            content_type: None,
        }
    }

    #[test]
    fn members_and_their_order_are_those_of_s3db_js() {
        let object = object(&[("_v", "v1"), ("10", "k"), ("a", "ü"), ("0", "x"), ("01", "y")], b"A\n");
        let text = String::from_utf8(write(&object, Timestamp(1)).unwrap()).unwrap();
        assert_eq!(
            text,
            "{\n  \"metadata\": {\n    \"0\": \"x\",\n    \"10\": \"k\",\n    \"_v\": \"v1\",\n    \"a\": \"ü\",\n    \
             \"01\": \"y\"\n  },\n  \"contentType\": \"application/octet-stream\",\n  \
             \"etag\": \"bf072e9119077b4e76437a93986787ef\",\n  \"lastModified\": \"1970-01-01T00:00:00.001Z\",\n  \
             \"size\": 2,\n  \"contentLength\": 2,\n  \"compressed\": false,\n  \"expiresAt\": null,\n  \
             \"body\": {\n    \"type\": \"Buffer\",\n    \"data\": [\n      65,\n      10\n    ]\n  }\n}"
        );
        let back = Sidecar::parse(text.as_bytes()).unwrap().with_body(b"A\n".to_vec()).unwrap();
        assert_eq!(back.metadata.len(), 5);
        assert_eq!(back.body, object.body);
    }

    #[test]
    fn a_body_of_another_moment_does_not_fit() {
        let text = write(&object(&[], b"ab"), Timestamp(1)).unwrap();
        let unfit = |body: &[u8]| Sidecar::parse(&text).unwrap().with_body(body.to_vec()).unwrap_err();
        assert_eq!(unfit(b"abc"), Unfit::Mismatch);
        assert_eq!(unfit(b"ba"), Unfit::Mismatch);
    }
}
