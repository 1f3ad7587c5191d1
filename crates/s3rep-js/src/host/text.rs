//! Text as bytes and back, and URLs.

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose},
};
use serde_json::json;
use url::Url;

/// As Node reads them: what is not of the encoding ends the text or is left out.
pub(super) fn to_bytes(text: &str, encoding: &str) -> Vec<u8> {
    match encoding {
        "hex" => unhex(text),
        "base64" | "base64url" => unbase64(text),
        "latin1" => text.chars().map(|character| character as u32 as u8).collect(),
        _ => text.as_bytes().to_vec(),
    }
}

pub(super) fn from_bytes(bytes: &[u8], encoding: &str) -> String {
    match encoding {
        "hex" => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        "base64" => general_purpose::STANDARD.encode(bytes),
        "base64url" => general_purpose::URL_SAFE_NO_PAD.encode(bytes),
        "latin1" => bytes.iter().map(|&byte| char::from(byte)).collect(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().map_while(|character| character.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn unbase64(text: &str) -> Vec<u8> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let is_safe = text.contains(['-', '_']);
    let engine = GeneralPurpose::new(if is_safe { &URL_SAFE } else { &STANDARD }, LENIENT);
    let kept: String = text.chars().take_while(|&c| c != '=').filter(|c| is_of_base64(*c)).collect();
    // A single character has no whole byte.
    let whole = if kept.len() % 4 == 1 { &kept[..kept.len() - 1] } else { &kept };
    engine.decode(whole).unwrap_or_default()
}

fn is_of_base64(character: char) -> bool {
    character.is_ascii_alphanumeric() || "+/-_".contains(character)
}

/// The parts of a URL as JSON, by the names that they have in JavaScript.
pub(super) fn url(text: &str, base: Option<&str>) -> Option<String> {
    let url = match base {
        Some(base) => Url::parse(base).ok()?.join(text).ok()?,
        None => Url::parse(text).ok()?,
    };
    let port = url.port().map(|port| port.to_string()).unwrap_or_default();
    let hostname = url.host_str().unwrap_or_default();
    let host = if port.is_empty() { hostname.to_owned() } else { format!("{hostname}:{port}") };
    let marked = |mark: char, part: Option<&str>| match part {
        None | Some("") => String::new(),
        Some(part) => format!("{mark}{part}"),
    };
    let parts = json!({
        "href": url.as_str(),
        "origin": url.origin().ascii_serialization(),
        "protocol": format!("{}:", url.scheme()),
        "username": url.username(),
        "password": url.password().unwrap_or_default(),
        "host": host,
        "hostname": hostname,
        "port": port,
        "pathname": url.path(),
        "search": marked('?', url.query()),
        "hash": marked('#', url.fragment()),
    });
    Some(parts.to_string())
}
