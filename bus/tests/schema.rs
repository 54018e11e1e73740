//! The published schema is what the code says.

use std::path::Path;

#[test]
fn published_schema_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/spec.schema.json");
    let current = serde_json::to_string_pretty(&wharf_bus::Spec::schema()).expect("JSON") + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &current).expect("written");
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        published, current,
        "docs/spec.schema.json is out of date; run UPDATE_SCHEMA=1 cargo test -p wharf-bus --test schema"
    );
}
