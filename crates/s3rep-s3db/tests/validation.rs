//! Everything that is wrong with a record, or with a resource, is said at once.
#![allow(clippy::unwrap_used, reason = "a failure is a failure of the test")]

mod common;

use std::sync::Arc;

use common::{config, creating, cx};
use s3rep_core::{ErrorKind, Record};
use s3rep_s3db::{Database, MemoryStore, ObjectStore, PutCondition, StoredObject};
use serde_json::json;

async fn memory() -> (Arc<MemoryStore>, Database) {
    let store = Arc::new(MemoryStore::new());
    (store.clone(), Database::open(store, creating()).await.unwrap())
}

#[tokio::test]
async fn every_problem_of_a_record_is_named_with_its_path() {
    let (_, database) = memory().await;
    let users = config(json!({"name": "users", "attributes": {
        "name": "string|min:3", "email": "email", "age": "number|min:0|integer", "site": "url|optional",
        "plan": {"type": "enum", "values": ["free", "paid"]}, "tags": "array|items:string|max:3|optional",
        "token": "secret|optional",
        "address": {"street": "string", "geo": {"lat": "geo:lat", "zip": "string|length:5"}},
        "born": "dateonly|optional", "note": "string|optional",
    }}));
    let users = database.create_resource(&users).await.unwrap();
    let error = users
        .insert(json!({
            "id": "u1", "name": "Jo", "age": -1.5, "site": "gopher://hidden", "plan": "gold",
            "tags": ["ok", 2, "fine", {"x": 3}], "token": 5,
            "address": {"geo": {"lat": 91, "zip": "123"}}, "born": "hidden-day", "note": "fine",
            "Extra": 5, "__proto__": 1,
        }))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
    let text = error.to_string();
    for part in [
        "'name' has too few characters",
        "'email' is required",
        "'age' is below its minimum",
        "'site' must be a URL",
        "'plan' is not one of the allowed values",
        "'tags' has too many items",
        "'tags[1]' must be a text",
        "'tags[3]' must be a text",
        "'token' must be a text",
        "'address.street' is required",
        "'address.geo.lat' is above its maximum",
        "'address.geo.zip' has the wrong number of characters",
        "'born' must be a date",
        "'__proto__' has a name",
        "'Extra' is not declared",
        "resource: users, id: u1",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    for hidden in ["gopher", "gold", "hidden-day"] {
        assert!(!text.contains(hidden), "a value of the record: {text}");
    }
    assert!(!text.contains("note"), "{text}");
    assert_eq!(users.count().await.unwrap(), 0);

    // The same in an update, where the rest of the record is fine.
    let good = json!({"id": "u1", "name": "Joan", "email": "j@x.org", "age": 1, "plan": "free", "address": {"street": "s", "geo": {"lat": 1, "zip": "12345"}}});
    users.insert(good).await.unwrap();
    let error =
        users.update("u1", json!({"age": "x", "address.geo.lat": "y", "plan": null})).await.unwrap_err();
    for part in ["'age'", "'address.geo.lat'", "'plan' is required"] {
        assert!(error.to_string().contains(part), "{part}\n{error}");
    }
}

#[tokio::test]
async fn every_problem_of_a_definition_is_named_with_what_was_meant() {
    let (_, database) = memory().await;
    let wrong = config(json!({"name": "r", "attributes": {
        "a": "strnig", "b": {"c": "text", "d": {"e": "nmber|optional"}}, "f": "string|requird", "g": "array|items:strin",
        "h": {"type": "datetme"}, "i": 7, "j": "string|pattern:(", "k": "boolean|maxlenght:5", "l": "bool",
        "m": {"type": "enum"}, "n": {"type": "string", "maxlenght": 5, "label": "L"},
    }, "partitions": {"p": {"fields": {"x": "string"}}}}));
    let error = database.create_resource(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    let text = error.to_string();
    for part in [
        "'a' has the type 'strnig', which s3db.js 21 does not take: did you mean 'string'?",
        "'b.c' has the type 'text', which s3db.js 21 does not take: did you mean 'string'?",
        "'b.d.e' has the type 'nmber', which s3db.js 21 does not take: did you mean 'number'?",
        "'f' has the modifier 'requird', which is none: did you mean 'required'?",
        "'g' has the type 'strin', which s3db.js 21 does not take: did you mean 'string'?",
        "'h' has the type 'datetme', which s3db.js 21 does not take: did you mean 'datetime'?",
        "'i' is neither text nor an object",
        "'j' has a pattern",
        "'k' has the modifier 'maxlenght', which is none: did you mean 'maxlength'?",
        "'l' has the type 'bool', which s3db.js 21 does not take: did you mean 'boolean'?",
        "'m': write an enum as",
        "'n' has the modifier 'maxlenght', which is none: did you mean 'maxlength'?",
        "the field 'x', which is no attribute",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("'label'"), "{text}");
    assert_eq!(database.resources(), [""; 0]);
    let good = config(
        json!({"name": "r", "attributes": {"a": "string|required|maxlength:5|minlength:1|", "b": "embedding:3|optional",
        "c": "money:4|optional", "d": "geo:lat:5|optional", "e": "array|items:number|unique|min:1|optional"}}),
    );
    database.create_resource(&good).await.unwrap();
}

#[tokio::test]
async fn types_that_nobody_knows_are_text_in_somebody_elses_database() {
    let (store, database) = memory().await;
    database
        .create_resource(&config(json!({"name": "r", "attributes": {"a": "string", "b": {"c": "string"}}})))
        .await
        .unwrap();
    let document = store.get_body(&cx(), "s3db.json").await.unwrap().unwrap();
    let document = String::from_utf8(document.to_vec())
        .unwrap()
        .replace("\"a\": \"string\"", "\"a\": \"quaternion|optional\"");
    let object = StoredObject { body: document.into(), ..StoredObject::default() };
    store.put(&cx(), "s3db.json", &object, PutCondition::Always).await.unwrap();
    let database = Database::open(store, creating()).await.unwrap();
    let resource = database.resource("r").unwrap();
    resource.insert(json!({"id": "1", "a": "1+2i+3j+4k"})).await.unwrap();
    assert_eq!(resource.get::<Record>("1").await.unwrap()["a"], "1+2i+3j+4k");
}
