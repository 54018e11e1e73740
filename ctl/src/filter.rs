//! `--filter KEY=VALUE`: several values of one key are alternatives, several keys must all hold.

use crate::record;
use serde_json::Value;

/// Conditions on records.
#[derive(Debug, Default)]
pub struct Filters(Vec<(String, String)>);

impl Filters {
    /// Read filters; `known` are the keys of this listing.
    pub fn parse(filters: &[String], known: &[&str]) -> anyhow::Result<Self> {
        let mut found = Vec::new();
        for filter in filters {
            let Some((key, value)) = filter.split_once('=') else {
                anyhow::bail!("--filter '{filter}': it must be KEY=VALUE; keys are {}", known.join(", "));
            };
            // docker's word for a container's state.
            let key = if key == "status" { "state" } else { key };
            if !known.contains(&key) {
                anyhow::bail!("--filter '{filter}': there is no key '{key}'; there are {}", known.join(", "));
            }
            found.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self(found))
    }

    /// Does one of them use this key?
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(used, _)| used == key)
    }

    /// Does the record pass?
    pub fn admits(&self, record: &Value) -> bool {
        self.0.iter().all(|(key, value)| {
            // Labels are conditions of their own; of other keys any one of the values will do.
            if key == "label" {
                holds(record, key, value)
            } else {
                self.0.iter().any(|(other, value)| other == key && holds(record, key, value))
            }
        })
    }
}

fn holds(record: &Value, key: &str, value: &str) -> bool {
    match key {
        "name" => match record.get("Names").and_then(Value::as_array) {
            Some(names) => names.iter().any(|name| name.as_str().is_some_and(|name| name.contains(value))),
            None => record::text(record, "Name").contains(value),
        },
        "id" => {
            let id = record::text(record, "Id");
            id.starts_with(value)
                || id.strip_prefix("sha256:").is_some_and(|digits| digits.starts_with(value))
        }
        "state" => record::text(record, "State") == value,
        "image" => {
            let image = record::text(record, "Image");
            image == value
                || record::familiar(image) == value
                || record::familiar(image).split([':', '@']).next() == Some(value)
                || record::short_id(record::text(record, "ImageId")) == record::short_id(value)
        }
        "label" => {
            let labels = record.get("Labels");
            match value.split_once('=') {
                Some((key, value)) => {
                    labels.and_then(|labels| labels.get(key)).and_then(Value::as_str) == Some(value)
                }
                None => labels.and_then(|labels| labels.get(value)).is_some(),
            }
        }
        "ready" => {
            record.get("Ready").and_then(Value::as_bool).map(|ready| ready.to_string()).as_deref()
                == Some(value)
        }
        "kind" => record::text(record, "Kind") == value,
        "container" => {
            record::text(record, "Name") == value
                || (!value.is_empty() && record::text(record, "Container").starts_with(value))
        }
        "exited" => {
            record.get("ExitCode").and_then(Value::as_i64).map(|code| code.to_string()).as_deref()
                == Some(value)
                && matches!(record::text(record, "State"), "exited" | "failed")
        }
        // parse() lets no other key through.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const KNOWN: [&str; 7] = ["name", "id", "state", "image", "label", "ready", "exited"];

    fn passes(filters: &[&str]) -> bool {
        let filters: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
        Filters::parse(&filters, &KNOWN).unwrap().admits(&json!({
            "Name": "web-1", "Id": "abc123", "State": "running", "Image": "docker.io/library/busybox:latest",
            "ImageId": "sha256:ffff", "Labels": {"app": "web", "tier": "front"}, "Ready": true, "ExitCode": -1,
        }))
    }

    #[test]
    fn each_key_has_its_own_meaning() {
        for filter in [
            "name=web",
            "id=abc",
            "state=running",
            "status=running",
            "image=busybox",
            "image=busybox:latest",
            "image=docker.io/library/busybox:latest",
            "label=app",
            "label=app=web",
            "ready=true",
        ] {
            assert!(passes(&[filter]), "{filter}");
        }
        for filter in [
            "name=db",
            "id=bc",
            "state=exited",
            "image=alpine",
            "label=x",
            "label=app=db",
            "ready=false",
            "exited=-1",
        ] {
            assert!(!passes(&[filter]), "{filter}");
        }
    }

    #[test]
    fn values_of_a_key_are_alternatives_and_keys_and_labels_add_up() {
        assert!(passes(&["state=exited", "state=running"]));
        assert!(!passes(&["state=running", "name=db"]));
        assert!(!passes(&["label=app=web", "label=tier=back"]));
        assert!(passes(&[]));
    }

    #[test]
    fn unknown_key_lists_the_known_ones() {
        let error = Filters::parse(&["colour=red".into()], &KNOWN).unwrap_err().to_string();
        assert!(error.contains("colour") && error.contains("label"), "{error}");
        assert!(Filters::parse(&["name".into()], &KNOWN).is_err());
    }
}
