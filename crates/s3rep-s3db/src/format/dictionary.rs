//! The dictionary of metadata texts: frequent values and URL prefixes have short codes.

/// Values and their codes. `font/woff2` shares the code of `failed`, which wins on reading.
const VALUES: [(&str, u8); 37] = [
    ("application/json", b'j'),
    ("application/xml", b'X'),
    ("application/ld+json", b'J'),
    ("text/html", b'H'),
    ("text/plain", b'T'),
    ("text/css", b'C'),
    ("text/javascript", b'V'),
    ("text/csv", b'v'),
    ("image/png", b'P'),
    ("image/jpeg", b'I'),
    ("image/gif", b'G'),
    ("image/svg+xml", b'S'),
    ("image/webp", b'W'),
    ("application/pdf", b'Q'),
    ("application/zip", b'z'),
    ("application/octet-stream", b'o'),
    ("application/x-www-form-urlencoded", b'u'),
    ("multipart/form-data", b'F'),
    ("font/woff", b'w'),
    ("processing", b'p'),
    ("completed", b'c'),
    ("succeeded", b's'),
    ("failed", b'f'),
    ("cancelled", b'x'),
    ("timeout", b't'),
    ("retrying", b'r'),
    ("authorized", b'a'),
    ("captured", b'K'),
    ("refunded", b'R'),
    ("declined", b'd'),
    ("shipped", b'h'),
    ("delivered", b'D'),
    ("returned", b'e'),
    ("in_transit", b'i'),
    ("initialized", b'n'),
    ("terminated", b'm'),
    ("font/woff2", b'f'),
];

/// URL prefixes and their codes, longest first.
const PREFIXES: [(&str, u8); 16] = [
    ("https://s3.amazonaws.com/", b's'),
    ("https://api.example.com/", b'A'),
    ("http://localhost:", b'L'),
    ("http://localhost", b'l'),
    ("https://www.", b'W'),
    ("https://api.", b'H'),
    ("https://s3-", b'S'),
    ("/products/", b'p'),
    ("/api/v1/", b'1'),
    ("/api/v2/", b'2'),
    ("/api/v3/", b'3'),
    ("https://", b'h'),
    ("http://", b't'),
    ("/users/", b'u'),
    ("/api/", b'a'),
    ("/v1/", b'v'),
];

/// The text with its code, when that is shorter. Non-ASCII text after a prefix passes through as it is.
pub(super) fn shorten(text: &str) -> Option<String> {
    if let Some((_, code)) = VALUES.iter().find(|(value, _)| *value == text) {
        return Some(format!("d:{}", char::from(*code)));
    }
    let (prefix, code) = PREFIXES.iter().find(|(prefix, _)| text.starts_with(prefix))?;
    // `d:@x` must be shorter than what it stands for
    (prefix.len() > 4).then(|| {
        let rest = text.get(prefix.len()..).unwrap_or_default();
        format!("d:@{}{rest}", char::from(*code))
    })
}

/// The text of `d:…`, when the code is known.
pub(super) fn expand(text: &str) -> Option<String> {
    match text.as_bytes() {
        [b'd', b':', b'@', code, ..] => {
            let (prefix, _) = PREFIXES.iter().find(|(_, known)| known == code)?;
            Some(format!("{prefix}{}", text.get(4..)?))
        }
        [b'd', b':', code] => {
            let (value, _) = VALUES.iter().find(|(_, known)| known == code)?;
            Some((*value).to_owned())
        }
        _ => None,
    }
}
