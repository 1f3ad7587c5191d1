//! Where a page ended, as text that a client may keep: base64url of `{"v":1,"prefix":P,"token":T,"pageSize":N}`
//! as in s3db.js, with the base64 of the last key for a token.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use s3rep_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Cursor {
    v: u32,
    prefix: String,
    token: String,
    #[serde(rename = "pageSize")]
    page_size: usize,
}

/// The cursor after the last key that was looked at.
pub(super) fn after(key: &str, prefix: &str, size: usize) -> String {
    let cursor =
        Cursor { v: 1, prefix: named(prefix).to_owned(), token: STANDARD.encode(key), page_size: size };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
}

/// The key that a page starts after.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] when the text is no cursor, or that of another query.
pub(super) fn read(text: &str, prefix: &str, size: usize) -> Result<String> {
    let wrong = |what: &'static str| {
        Error::new(ErrorKind::InvalidValue, format!("the cursor {what}")).with_advice(
            "pass what `next` of the page before said, with the same partition and the same size",
        )
    };
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
    let cursor = bytes.ok().and_then(|bytes| serde_json::from_slice::<Cursor>(&bytes).ok());
    let cursor = cursor.filter(|cursor| cursor.v == 1).ok_or_else(|| wrong("is not one of this version"))?;
    if cursor.prefix != named(prefix) {
        return Err(wrong("is of another resource or partition"));
    }
    if cursor.page_size != size {
        return Err(wrong("is of pages of another size").with_context("size", size));
    }
    let key = STANDARD.decode(cursor.token).ok().and_then(|key| String::from_utf8(key).ok());
    key.filter(|key| key.starts_with(prefix)).ok_or_else(|| wrong("does not say where the page ended"))
}

/// A prefix as s3db.js names it: without what follows the directory.
fn named(prefix: &str) -> &str {
    prefix.trim_end_matches("id=").trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_the_text_of_s3db_js() {
        let prefix = "resource=cars/data/id=";
        let text = after("resource=cars/data/id=b", prefix, 2);
        let json = String::from_utf8(URL_SAFE_NO_PAD.decode(&text).unwrap()).unwrap();
        assert_eq!(
            json,
            r#"{"v":1,"prefix":"resource=cars/data","token":"cmVzb3VyY2U9Y2Fycy9kYXRhL2lkPWI=","pageSize":2}"#
        );
        assert_eq!(read(&text, prefix, 2).unwrap(), "resource=cars/data/id=b");
    }

    #[test]
    fn a_cursor_fits_its_query_only() {
        let prefix = "resource=cars/partition=byOrigin/origin=US/";
        let text = after("resource=cars/partition=byOrigin/origin=US/id=b", prefix, 2);
        assert!(read(&text, prefix, 2).is_ok());
        let elsewhere = URL_SAFE_NO_PAD.encode(
            r#"{"v":1,"prefix":"resource=cars/partition=byOrigin/origin=US","token":"c2VjcmV0","pageSize":2}"#,
        );
        for (text, prefix, size) in [
            (text.as_str(), prefix, 3),
            (&text, "resource=cars/data/id=", 2),
            (&text[1..], prefix, 2),
            (&elsewhere, prefix, 2),
            ("", prefix, 2),
            ("{}", prefix, 2),
            ("e30", prefix, 2),
        ] {
            let error = read(text, prefix, size).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidValue);
            assert!(error.to_string().contains("cursor") && error.advice().is_some(), "{error}");
        }
    }
}
