//! Values in the form in which they are stored: checked, trimmed and converted as the rule says.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{
    codec, js, packing, password,
    rule::{Kind, Rule},
    text, time,
};

/// What is wrong with a value. Never the value itself.
pub(super) type Problem = String;

impl Rule {
    /// The normalised form of a value that is not null.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn normalize(&self, value: &Value) -> Result<Value, Problem> {
        let problem = |text: &str| Err(text.to_owned());
        let shaped = |shape: Option<String>, what: &str| {
            shape.map(Value::String).ok_or_else(|| format!("must be {what}"))
        };
        let trimmed = value.as_str().map(js::trim);
        match &self.kind {
            Kind::String => self.string(value),
            Kind::Password if value.as_str().is_some_and(password::is_hash) => Ok(value.clone()),
            Kind::Secret | Kind::Password => self.string(value),
            Kind::SecretNumber => self.number(value),
            Kind::Number => self.number(value),
            Kind::Boolean => boolean(value).map(Value::Bool).ok_or_else(|| "must be a boolean".into()),
            Kind::Array(items) => self.array(value, items.as_deref()),
            Kind::Embedding(length) => {
                let Some(items) = value.as_array() else { return problem("must be a list of numbers") };
                if items.is_empty() || length.is_some_and(|length| length != items.len()) {
                    return problem("must have the declared number of items");
                }
                let numbers: Option<Vec<Value>> =
                    items.iter().map(|item| numeric(item).map(js::number)).collect();
                numbers.map(Value::Array).ok_or_else(|| "must be a list of numbers".into())
            }
            Kind::Object => match value {
                Value::Object(_) => Ok(value.clone()),
                _ => problem("must be an object"),
            },
            Kind::Any | Kind::Json | Kind::SecretAny | Kind::Unknown => Ok(value.clone()),
            Kind::Enum(values) => {
                if values.iter().any(|allowed| js::same(allowed, value)) {
                    Ok(value.clone())
                } else {
                    problem("is not one of the allowed values")
                }
            }
            Kind::Email => self.word(value, "an e-mail address", |text| {
                let (local, domain) = text.rsplit_once('@')?;
                let (host, top) = domain.rsplit_once('.')?;
                let parts = [local, host, top];
                parts.iter().all(|part| !part.is_empty() && !part.contains(char::is_whitespace)).then_some(())
            }),
            Kind::Url => self.word(value, "a URL", |text| {
                let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
                (!rest.is_empty() && !rest.starts_with(char::is_whitespace)).then_some(())
            }),
            Kind::Uuid => {
                let fits = |text: &&str| packing::Packing::Uuid.pack(text).is_some() && hyphenated(text);
                match value.as_str().filter(fits) {
                    Some(text) => Ok(text.to_ascii_lowercase().into()),
                    None => problem("must be a hyphenated UUID"),
                }
            }
            Kind::Date => match value.as_str() {
                // what reading returns: JSON text with its quotes
                Some(text) if text.starts_with('"') && text.ends_with('"') && text.len() > 1 => {
                    Ok(value.clone())
                }
                _ => shaped(
                    time::instant(value).and_then(time::iso).map(|text| format!("\"{text}\"")),
                    "a date, such as 2024-02-29",
                ),
            },
            Kind::DateTime => shaped(
                time::instant(value).and_then(time::iso),
                "a date and time, such as 2024-01-02T03:04:05.678Z",
            ),
            Kind::DateOnly => shaped(time::day(value).and_then(time::date), "a date, such as 2024-02-29"),
            Kind::TimeOnly => shaped(
                trimmed.and_then(time::time_of_day).map(time::clock),
                "a time, such as 12:34, 12:34:56 or 12:34:56.789",
            ),
            Kind::Mac => shaped(trimmed.and_then(mac), "a MAC address, such as AA:BB:CC:DD:EE:FF"),
            Kind::Cidr => shaped(trimmed.and_then(cidr), "an address range, such as 192.168.1.0/24"),
            Kind::Semver => {
                shaped(trimmed.and_then(semver), "a version, such as 1.2.3, with parts below 1000")
            }
            Kind::Phone => {
                shaped(trimmed.and_then(phone), "a phone number with country code and 7 to 15 digits")
            }
            Kind::Color => shaped(trimmed.and_then(color), "a color, such as #ff5733"),
            Kind::Duration => shaped(
                time::duration(value).and_then(time::duration_text),
                "a duration, such as PT1H30M or 90s",
            ),
            Kind::Cron => shaped(trimmed.and_then(cron), "a cron expression of five fields"),
            Kind::Locale => shaped(trimmed.and_then(locale), "a locale, such as pt-BR"),
            Kind::Currency => {
                shaped(trimmed.and_then(|text| letters(text, 3)), "a currency of three letters")
            }
            Kind::Country => shaped(trimmed.and_then(|text| letters(text, 2)), "a country of two letters"),
            Kind::Ean => shaped(ean(value), "8, 12, 13 or 14 digits"),
            Kind::Ip4 => match value.as_str() {
                Some(text) => Ok(packing::ip4(text).map_or_else(
                    || value.clone(),
                    |address| std::net::Ipv4Addr::from(address).to_string().into(),
                )),
                None => problem("must be a text"),
            },
            Kind::Ip6 => {
                match value.as_str() {
                    Some(text) => Ok(packing::ip6(text)
                        .map_or_else(|| value.clone(), |bytes| packing::ip6_text(bytes).into())),
                    None => problem("must be a text"),
                }
            }
            Kind::Money => {
                let floor = if self.limit("min").is_none() { Some(0.0) } else { None };
                self.bounded(value, floor, None)
            }
            Kind::Decimal => self.bounded(value, None, None),
            Kind::Latitude => self.bounded(value, Some(-90.0), Some(90.0)),
            Kind::Longitude => self.bounded(value, Some(-180.0), Some(180.0)),
            Kind::Point => match codec::coordinates(value) {
                Some((latitude, longitude)) if latitude.abs() <= 90.0 && longitude.abs() <= 180.0 => {
                    Ok(value.clone())
                }
                _ => problem("must be a point on the globe: {latitude, longitude}"),
            },
            Kind::Bytes => match value.as_str() {
                Some(text) if STANDARD.encode(text::lenient_base64(text)) == text => Ok(value.clone()),
                _ => problem("must be bytes as padded base64 text"),
            },
        }
    }

    fn string(&self, value: &Value) -> Result<Value, Problem> {
        let owned;
        let text = match value {
            Value::String(text) => text.as_str(),
            Value::Number(_) | Value::Bool(_) if self.has("convert") => {
                owned = js::string(value);
                &owned
            }
            _ => return Err("must be a text".into()),
        };
        let mut text = js::trim(text).to_owned();
        if self.has("lowercase") {
            text = text.to_lowercase();
        } else if self.has("uppercase") {
            text = text.to_uppercase();
        }
        let length = js::length(&text);
        if text.is_empty() && self.forbids("empty") {
            return Err("must not be empty".into());
        }
        self.count(length, "characters")?;
        let of = |class: fn(&char) -> bool| text.chars().all(|c| class(&c));
        for (option, fits) in [
            ("alphanum", of(|c| c.is_ascii_alphanumeric())),
            ("alpha", of(|c| c.is_ascii_alphabetic())),
            ("numeric", js::parse_number(&text).is_some()),
        ] {
            if self.has(option) && !fits {
                return Err(format!("is not {option}"));
            }
        }
        match &self.pattern {
            Some(Ok(pattern)) if !pattern.is_match(&text) => Err("does not match its pattern".into()),
            Some(Err(())) => Err("has a pattern that cannot be checked here".into()),
            _ => Ok(text.into()),
        }
    }

    /// Checks `min`, `max` and `length` against a number of things.
    fn count(&self, count: usize, things: &str) -> Result<(), Problem> {
        let count = count as f64;
        if self.limit("min").is_some_and(|min| count < min) {
            return Err(format!("has too few {things}"));
        }
        if self.limit("max").is_some_and(|max| count > max) {
            return Err(format!("has too many {things}"));
        }
        if self.limit("length").is_some_and(|length| count != length) {
            return Err(format!("has the wrong number of {things}"));
        }
        Ok(())
    }

    fn number(&self, value: &Value) -> Result<Value, Problem> {
        self.bounded(value, None, None)
    }

    fn bounded(&self, value: &Value, floor: Option<f64>, ceiling: Option<f64>) -> Result<Value, Problem> {
        if value.as_number().is_some_and(|n| js::exact(n).is_none()) {
            return Err("has more digits than a JavaScript number holds: declare it as string".into());
        }
        let Some(n) = numeric(value) else { return Err("must be a number".into()) };
        let low = self.limit("min").or(floor).is_some_and(|min| n < min);
        let high = self.limit("max").or(ceiling).is_some_and(|max| n > max);
        if low || high || floor.is_some_and(|floor| n < floor) || ceiling.is_some_and(|ceiling| n > ceiling) {
            return Err(if low { "is below its minimum" } else { "is above its maximum" }.into());
        }
        if (self.has("positive") && n <= 0.0) || (self.has("negative") && n >= 0.0) {
            return Err("has the wrong sign".into());
        }
        if self.has("integer") && n.fract() != 0.0 {
            return Err("must be an integer".into());
        }
        Ok(js::number(n))
    }

    fn array(&self, value: &Value, rule: Option<&Self>) -> Result<Value, Problem> {
        let Some(items) = value.as_array() else { return Err("must be a list".into()) };
        self.list(items)?;
        let Some(rule) = rule else { return Ok(value.clone()) };
        let checked = items.iter().map(|item| rule.item(item));
        checked
            .collect::<Result<_, _>>()
            .map(Value::Array)
            .map_err(|problem| format!("has an item that {}", problem.replacen("must be", "is not", 1)))
    }

    /// Checks what a list as such has to be.
    fn list(&self, items: &[Value]) -> Result<(), Problem> {
        self.count(items.len(), "items")?;
        if self.has("unique")
            && items.iter().enumerate().any(|(i, a)| items.iter().skip(i + 1).any(|b| js::same(a, b)))
        {
            return Err("has an item twice".into());
        }
        Ok(())
    }

    /// The rule of an item.
    fn item(&self, item: &Value) -> Result<Value, Problem> {
        match &self.kind {
            // texts in lists are not trimmed
            Kind::String if item.is_string() => Ok(item.clone()),
            _ => self.normalize(item),
        }
    }

    /// Everything that is wrong with a value, with the places of items of a list. Of those the first ten: a list
    /// of another type has nothing else.
    pub(super) fn problems(&self, value: &Value) -> Vec<(String, Problem)> {
        let (Kind::Array(Some(rule)), Value::Array(items)) = (&self.kind, value) else {
            return self.normalize(value).err().map(|problem| (String::new(), problem)).into_iter().collect();
        };
        let whole = self.list(items).err().map(|problem| (String::new(), problem));
        let wrong = items
            .iter()
            .enumerate()
            .filter_map(|(at, item)| Some((format!("[{at}]"), rule.item(item).err()?)));
        whole.into_iter().chain(wrong.take(10)).collect()
    }

    fn word(&self, value: &Value, what: &str, fits: impl Fn(&str) -> Option<()>) -> Result<Value, Problem> {
        match value.as_str() {
            Some(text) if fits(text).is_some() => Ok(value.clone()),
            _ => Err(format!("must be {what}")),
        }
    }
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) if n.as_f64() == Some(1.0) => Some(true),
        Value::Number(n) if n.as_f64() == Some(0.0) => Some(false),
        Value::String(text) => match text.as_str() {
            "true" | "1" | "on" => Some(true),
            "false" | "0" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn numeric(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => js::exact(n),
        Value::String(text) => js::parse_number(text),
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        _ => None,
    }
}

fn hyphenated(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, b)| (b == b'-') == matches!(at, 8 | 13 | 18 | 23))
}

fn mac(text: &str) -> Option<String> {
    let hex: String = text.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
    let groups = |mark: char, size: usize| text.split(mark).all(|group| group.len() == size);
    let shaped = groups(':', 2) || groups('-', 2) || groups('.', 4) || text.len() == 12;
    let fits = hex.len() == 12 && hex.bytes().all(|b| b.is_ascii_hexdigit()) && shaped;
    let pairs = hex.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_ascii_lowercase());
    fits.then(|| pairs.collect::<Vec<_>>().join(":"))
}

fn cidr(text: &str) -> Option<String> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    Some(format!("{}/{prefix}", std::net::Ipv4Addr::from(packing::ip4(address)?)))
}

fn semver(text: &str) -> Option<String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let parts = text
        .split('.')
        .map(|part| if part.bytes().all(|b| b.is_ascii_digit()) { part.parse::<u64>().ok() } else { None });
    match parts.collect::<Option<Vec<_>>>()?.as_slice() {
        [major, minor @ 0..=999, patch @ 0..=999] => Some(format!("{major}.{minor}.{patch}")),
        _ => None,
    }
}

fn phone(text: &str) -> Option<String> {
    let rest = text.strip_prefix('+').unwrap_or(text);
    let allowed = rest.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '(' | ')' | '-' | '.' | '/'));
    let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
    (allowed && (7..=15).contains(&digits.len()) && !digits.starts_with('0')).then(|| format!("+{digits}"))
}

fn color(text: &str) -> Option<String> {
    let hex = text.strip_prefix('#').unwrap_or(text);
    if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    match hex.len() {
        6 => Some(format!("#{}", hex.to_ascii_lowercase())),
        3 => {
            Some(hex.chars().fold("#".to_owned(), |text, c| format!("{text}{0}{0}", c.to_ascii_lowercase())))
        }
        _ => None,
    }
}

fn cron(text: &str) -> Option<String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let fits = |field: &&str| field.bytes().all(|b| b.is_ascii_alphanumeric() || b"*/,-?#".contains(&b));
    (fields.len() == 5 && fields.iter().all(fits)).then(|| fields.join(" "))
}

fn locale(text: &str) -> Option<String> {
    let alphabetic = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphabetic())
    };
    let (language, region) =
        text.split_once(['-', '_']).map_or((text, None), |(language, region)| (language, Some(region)));
    if !alphabetic(language, 2..=3) {
        return None;
    }
    let language = language.to_ascii_lowercase();
    match region {
        None => Some(language),
        Some(region) if alphabetic(region, 2..=2) => {
            Some(format!("{language}-{}", region.to_ascii_uppercase()))
        }
        Some(_) => None,
    }
}

fn letters(text: &str, count: usize) -> Option<String> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_alphabetic())).then(|| text.to_ascii_uppercase())
}

fn ean(value: &Value) -> Option<String> {
    let digits = match value {
        Value::Number(n) => format!("{:0>13}", n.as_u64()?),
        Value::String(text) => js::trim(text).to_owned(),
        _ => return None,
    };
    let fits = matches!(digits.len(), 8 | 12 | 13 | 14) && digits.bytes().all(|b| b.is_ascii_digit());
    fits.then_some(digits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn normalize(definition: &str, value: Value) -> Option<Value> {
        Rule::of_text(definition).normalize(&value).ok()
    }

    #[test]
    fn values_take_the_form_of_their_type() {
        for (definition, value, form) in [
            ("string", json!("  padded "), json!("padded")),
            ("number", json!("42.5"), json!(42.5)),
            ("number", json!(true), json!(1)),
            ("boolean", json!("off"), json!(false)),
            ("mac", json!("aabb.ccdd.eeff"), json!("aa:bb:cc:dd:ee:ff")),
            ("cidr", json!("010.001.000.009/8"), json!("10.1.0.9/8")),
            ("semver", json!("v10.20.30"), json!("10.20.30")),
            ("phone", json!("+55 (11) 99999-9999"), json!("+5511999999999")),
            ("color", json!("#F57"), json!("#ff5577")),
            ("cron", json!("*/5   * * * *"), json!("*/5 * * * *")),
            ("locale", json!("pt_br"), json!("pt-BR")),
            ("ean", json!(4_006_381_333_931_u64), json!("4006381333931")),
            ("dateonly", json!(86_400_000), json!("1970-01-02")),
            ("array|items:number", json!(["5"]), json!([5])),
            ("ip6", json!("::ffff:1.2.3.4"), json!("::ffff:102:304")),
        ] {
            assert_eq!(normalize(definition, value), Some(form), "{definition}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (definition, value) in [
            ("string", json!(5)),
            ("string|max:2", json!("abc")),
            ("string|empty:false", json!("")),
            ("string|pattern:^a+$", json!("b")),
            ("number|min:0", json!(-1)),
            ("number|integer", json!(1.5)),
            ("number", json!(9_007_199_254_740_993_u64)),
            ("money", json!(-1)),
            ("geo:lat", json!(91)),
            ("geo:point", json!({"lat": 91, "lon": 0})),
            ("uuid", json!("de305d5475b4431badb2eb6b9e546014")),
            ("phone", json!("123")),
            ("semver", json!("1.1000.1")),
            ("buffer", json!("not base64!")),
            ("array|items:number", json!(["x"])),
            ("embedding:2", json!([1])),
        ] {
            assert_eq!(normalize(definition, value), None, "{definition}");
        }
    }
}
