//! Values: carried exactly or refused, never changed, never shown.

use s3rep_core::{Operation, Record, RouteMode};
use serde_json::{Number, Value, json};

use super::{
    Checked,
    batches::write_around,
    ensure,
    scene::{Harness, MARK, record},
    theme,
};
use crate::history::{Values, awkward};

theme! {
    "values/every value is carried exactly or its record refused alone" [Sight] exact;
    "values/a record with and without its id member" [Sight] id_member;
    "values/null and absent members may be one, empty text is neither" [Upsert, Readback] null_and_empty;
    "values/errors never show a value of a record" [] hidden;
}

async fn exact(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let mut taken: Vec<(String, &str, &str, Value)> = Vec::new();
        for (i, value) in awkward().into_iter().enumerate() {
            let key = format!("v-{i:03}");
            let content = record(json!({ value.attribute: value.value }));
            if mode == RouteMode::Upsert
                && harness.capability.readback
                && let Ok(expected) = scene.readback()?.expected(&table, &key, &content)
            {
                // A driver whose idea of the row is wrong would agree with itself.
                let carried = carries(&value.value, expected.get(value.attribute).unwrap_or(&Value::Null));
                ensure!(carried, "{}: expected() has another value for {}", value.name, value.attribute);
            }
            let changes = vec![
                scene.insert(&format!("{key}-before"), "1"),
                scene.change(&key, Operation::Insert, Some(content)),
                scene.insert(&format!("{key}-past"), "1"),
            ];
            let refused = write_around(&mut scene, &table, changes).await.map_err(|mut failure| {
                failure.0 = format!("{}: {}", value.name, failure.0);
                failure
            })?;
            ensure!(refused.is_empty() || refused == [key.as_str()], "{}: refused {refused:?}", value.name);
            if refused.is_empty() {
                taken.push((key, value.name, value.attribute, value.value));
            } else {
                ensure!(!Values::PLAIN.allow(value.needs), "{}: an ordinary value was refused", value.name);
            }
        }
        scene.verify(&table, "after awkward values").await?;
        if mode == RouteMode::Upsert {
            let rows = scene.rows(&table).await?;
            for (key, name, attribute, value) in taken {
                let row = rows.iter().find(|(have, _)| *have == key).map(|(_, row)| row);
                let have = row.and_then(|row: &Record| row.get(attribute)).unwrap_or(&Value::Null);
                ensure!(carries(&value, have), "{name}: came back as another value of {attribute}");
            }
        }
    }
    Ok(())
}

/// Whether a stored value is the original or one of the forms that lose nothing: 0 and 1 for booleans, JSON
/// text for anything, equal numbers in another notation.
fn carries(original: &Value, stored: &Value) -> bool {
    match (original, stored) {
        (Value::Bool(original), Value::Number(stored)) => stored.as_u64() == Some(u64::from(*original)),
        (Value::Number(original), Value::Number(stored)) => same_number(original, stored),
        (Value::Array(original), Value::Array(stored)) => {
            original.len() == stored.len() && original.iter().zip(stored).all(|(o, s)| carries(o, s))
        }
        (Value::Object(original), Value::Object(stored)) => {
            let same = |(name, value)| carries(value, stored.get(name).unwrap_or(&Value::Null));
            original.iter().all(same) && stored.keys().all(|name| original.contains_key(name))
        }
        (Value::String(original), Value::String(stored)) if original == stored => true,
        (original, Value::String(text)) => {
            serde_json::from_str::<Value>(text).is_ok_and(|parsed| parsed == *original)
        }
        (original, stored) => original == stored,
    }
}

fn same_number(one: &Number, other: &Number) -> bool {
    let integer = |n: &Number| n.as_i128().or_else(|| n.as_u64().map(i128::from));
    match (integer(one), integer(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => one.as_f64() == other.as_f64(),
        (Some(integer), None) => exactly(integer, other),
        (None, Some(integer)) => exactly(integer, one),
    }
}

/// Whether a double is this integer, to the last digit.
fn exactly(integer: i128, double: &Number) -> bool {
    // Every double of an integer below 2^127 converts back without loss.
    double.as_f64().is_some_and(|double| double.fract() == 0.0 && double as i128 == integer)
}

async fn id_member(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let with = record(json!({"id": "with", "note": "n"}));
        let without = record(json!({"note": "n"}));
        let changes = vec![
            scene.change("with", Operation::Insert, Some(with)),
            scene.change("without", Operation::Insert, Some(without)),
        ];
        scene.write(&table, changes).await?;
        scene.verify(&table, "after records with and without id").await?;
    }
    Ok(())
}

async fn null_and_empty(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    let of =
        |key: &str, note: Value| scene.change(key, Operation::Insert, Some(record(json!({ "note": note }))));
    let changes = vec![of("null", Value::Null), of("empty", "".into()), of("space", " ".into())];
    scene.write(&table, changes).await?;
    scene.verify(&table, "after nothing in three forms").await?;
    let rows = scene.rows(&table).await?;
    let note = |key: &str| rows.iter().find(|(k, _)| k == key).and_then(|(_, row)| row.get("note"));
    ensure!(note("null").is_none_or(Value::is_null), "null became something");
    ensure!(note("empty") == Some(&"".into()), "empty text became something else");
    ensure!(note("space") == Some(&" ".into()), "a space became something else");
    Ok(())
}

async fn hidden(harness: Harness) -> Checked {
    let modes = [RouteMode::Upsert, RouteMode::Append];
    for mode in modes.into_iter().filter(|mode| harness.capability.supports(*mode)) {
        let scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let mut missing = record(json!({"note": MARK}));
        missing.shift_remove("name");
        let wrong = [
            missing,
            record(json!({"note": format!("{MARK}\u{0}{MARK}")})),
            record(json!({"count": MARK, "price": MARK, "active": MARK})),
            record(json!({"count": {MARK: MARK}, "price": [MARK], "active": {MARK: 1}, "note": [MARK]})),
            record(json!({"seen": MARK, "day": MARK, "tags": MARK, "profile": MARK})),
            record(json!({"no_such_attribute": MARK})),
            record(json!({"count": u64::MAX, "price": u64::MAX, "note": MARK})),
            record(json!({"note": MARK.repeat(1 + harness.capability.limits.record_bytes / MARK.len())})),
        ];
        for (i, wrong) in wrong.into_iter().enumerate() {
            let key = format!("k-{i}");
            let batch = scene.batch(&table, vec![scene.change(&key, Operation::Insert, Some(wrong))]);
            // `apply` looks at every error. Whether there is one is the business of other cases.
            let _ = scene.apply(&batch).await;
        }
        let elsewhere = std::sync::Arc::new(s3rep_core::Table {
            name: "never_made".into(),
            mode,
            schema: crate::history::schema("never_made"),
        });
        let batch = scene.batch(&elsewhere, vec![scene.insert("a", MARK)]);
        let _ = scene.apply(&batch).await;
        let debug = format!("{:?} {:#?}", scene.sink, scene.sink);
        ensure!(!debug.contains(MARK), "the Debug form of the sink shows the value of a record");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lossless_forms_are_told_from_lossy_ones() {
        for (original, stored) in [
            (json!(true), json!(1)),
            (json!({"a": [1]}), json!("{\"a\":[1]}")),
            (json!({"a": [true]}), json!({"a": [true]})),
            (json!(7), json!(7.0)),
            (json!("12"), json!("\"12\"")),
            (json!(u64::MAX), json!("18446744073709551615")),
        ] {
            assert!(carries(&original, &stored), "{original} {stored}");
        }
        for (original, stored) in [
            (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992_i64)),
            (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992.0)),
            (json!(u64::MAX), json!(1.844_674_407_370_955_2e19)),
            (json!(""), Value::Null),
            (json!("12"), json!(12)),
            (json!("a\u{0}b"), json!("a")),
            (json!({"a": 1}), json!({"a": 1, "b": 2})),
            (json!(1e-7), json!(0)),
            (json!(false), json!(1)),
        ] {
            assert!(!carries(&original, &stored), "{original} {stored}");
        }
    }
}
