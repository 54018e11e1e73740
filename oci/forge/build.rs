//! Builds the keeper, which the forge carries in itself and starts from a sealed memfd.

#[path = "../nested.rs"]
mod nested;

fn main() {
    nested::Nested {
        package: "wharf-keeper",
        directories: &["oci/keeper"],
        target: "keeper",
        has_failpoints: true,
        binaries: &[("wharf-keeper", "WHARF_KEEPER")],
    }
    .build();
}
