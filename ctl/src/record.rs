//! Containers and images as JSON records, which listings, filters and templates are made from.

use crate::moment;
use crate::quantity;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use wharf_bus::types::{ImageInfo, Stats};
use zbus::{OwnedVariant, Variant};

/// Digits of an id that are shown where space is short.
pub const SHORT_ID: usize = 12;

/// Any D-Bus value as JSON.
pub fn json_of(value: &Variant<'_>) -> Value {
    match value {
        Variant::U8(value) => json!(value),
        Variant::Bool(value) => json!(value),
        Variant::I16(value) => json!(value),
        Variant::U16(value) => json!(value),
        Variant::I32(value) => json!(value),
        Variant::U32(value) => json!(value),
        Variant::I64(value) => json!(value),
        Variant::U64(value) => json!(value),
        Variant::F64(value) => json!(value),
        Variant::Str(value) => json!(value.as_str()),
        Variant::Signature(value) => json!(value.to_string()),
        Variant::ObjectPath(value) => json!(value.as_str()),
        Variant::Variant(value) => json_of(value),
        Variant::Array(values) => values.iter().map(json_of).collect(),
        Variant::Dict(entries) => {
            let mut fields = Map::new();
            for (key, value) in entries.iter() {
                let key = json_of(key);
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                fields.insert(key, json_of(value));
            }
            Value::Object(fields)
        }
        Variant::Structure(fields) => fields.fields().iter().map(json_of).collect(),
        Variant::Fd(_) => Value::Null,
    }
}

/// A container's properties as a record: times as text, the spec as an object.
pub fn container(properties: &HashMap<String, OwnedVariant>) -> Value {
    let mut record = Map::new();
    for (name, value) in properties {
        let value = json_of(value);
        let value = match (name.as_str(), &value) {
            ("CreatedAt" | "StartedAt" | "FinishedAt" | "NextStart", Value::Number(micros)) => {
                json!(moment::rfc3339(micros.as_u64().unwrap_or(0)))
            }
            ("Spec" | "Probes", Value::String(text)) => serde_json::from_str(text).unwrap_or(value),
            _ => value,
        };
        record.insert(name.clone(), value);
    }
    Value::Object(record)
}

/// A text field of a record; empty if there is none.
pub fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record.get(field).and_then(Value::as_str).unwrap_or("")
}

/// A number of a record.
pub fn number(properties: &HashMap<String, OwnedVariant>, field: &str) -> Option<u64> {
    json_of(properties.get(field)?).as_u64()
}

/// Has it a process that could be stopped, or is it to have one?
pub fn is_up(state: &str) -> bool {
    matches!(state, "waiting" | "starting" | "running" | "paused" | "stopping")
}

/// Adds what its cgroup says: for programs in numbers, for people as text.
pub fn add_usage(record: &mut Value, stats: Option<&Stats>, cpu_percent: Option<f64>) {
    let stats = stats.cloned().unwrap_or_default();
    let used = stats.memory_working_set.or(stats.memory_usage);
    if let Value::Object(fields) = record {
        fields.insert("CpuPercent".into(), json!(cpu_percent));
        fields.insert("MemoryUsage".into(), json!(used));
        fields.insert("MemoryLimit".into(), json!(stats.memory_limit));
        fields.insert("Cpu".into(), json!(cpu_percent.map(quantity::show_percent).unwrap_or_default()));
        fields.insert("Memory".into(), json!(show_memory(used, stats.memory_limit)));
    }
}

/// `12.3MiB / 64MiB`; the limit is left out if there is none.
pub fn show_memory(used: Option<u64>, limit: Option<u64>) -> String {
    match (used, limit) {
        (Some(used), Some(limit)) => {
            format!("{} / {}", quantity::show_bytes(used), quantity::show_bytes(limit))
        }
        (Some(used), None) => quantity::show_bytes(used),
        (None, _) => String::new(),
    }
}

/// An image as a record.
pub fn image(info: &ImageInfo, now: u64) -> Value {
    let created = u64::try_from(info.created).unwrap_or(0);
    let name = info.names.first().cloned().unwrap_or_default();
    let (repository, tag) = split_tag(&name);
    json!({
        "Id": info.id,
        "Digest": info.digest,
        "Names": info.names,
        "Name": name,
        "Repository": repository,
        "Tag": tag,
        "Bytes": info.size,
        "Size": quantity::show_bytes(info.size),
        "CreatedAt": moment::rfc3339(created),
        "Age": moment::age(created, now),
        "Platform": info.platform,
    })
}

/// Repository and tag of a name; a digest stands in the place of a tag.
fn split_tag(name: &str) -> (&str, &str) {
    let after_slash = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[after_slash..].find('@').or_else(|| name[after_slash..].find(':')) {
        Some(at) => (&name[..after_slash + at], &name[after_slash + at + 1..]),
        None => (name, ""),
    }
}

/// A name as people type it: without the registry and namespace that are the default.
pub fn familiar(name: &str) -> &str {
    match name.strip_prefix("docker.io/") {
        Some(rest) => match rest.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short,
            _ => rest,
        },
        None => name,
    }
}

/// The first digits of an id, with or without its algorithm.
pub fn short_id(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..SHORT_ID).unwrap_or(digits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn owned(value: impl Into<Variant<'static>>) -> OwnedVariant {
        OwnedVariant::try_from(value.into()).unwrap()
    }

    #[test]
    fn properties_become_a_record_with_times_and_spec_readable() {
        let properties = HashMap::from([
            ("Name".to_owned(), owned("web")),
            ("CreatedAt".to_owned(), owned(1_769_860_800_000_000_u64)),
            ("FinishedAt".to_owned(), owned(0_u64)),
            ("Spec".to_owned(), owned(r#"{"image":"x"}"#)),
            ("Command".to_owned(), owned(vec!["sh".to_owned(), "-c".to_owned()])),
            ("Labels".to_owned(), owned(HashMap::from([("a".to_owned(), "b".to_owned())]))),
        ]);
        assert_eq!(
            container(&properties),
            json!({"Name": "web", "CreatedAt": "2026-01-31T12:00:00.000000Z", "FinishedAt": "",
                   "Spec": {"image": "x"}, "Command": ["sh", "-c"], "Labels": {"a": "b"}})
        );
    }

    #[test]
    fn names_are_split_and_shortened() {
        assert_eq!(split_tag("localhost:5000/a/b:1"), ("localhost:5000/a/b", "1"));
        assert_eq!(split_tag("a/b@sha256:00"), ("a/b", "sha256:00"));
        assert_eq!(split_tag("a"), ("a", ""));
        assert_eq!(familiar("docker.io/library/busybox:latest"), "busybox:latest");
        assert_eq!(familiar("docker.io/wharf/demo:latest"), "wharf/demo:latest");
        assert_eq!(familiar("quay.io/x/y:1"), "quay.io/x/y:1");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }

    #[test]
    fn memory_is_shown_against_its_limit() {
        assert_eq!(show_memory(Some(1 << 20), Some(64 << 20)), "1MiB / 64MiB");
        assert_eq!(show_memory(Some(1 << 20), None), "1MiB");
        assert_eq!(show_memory(None, Some(5)), "");
    }
}
