//! Builds the programs that wharfd carries in itself: the forge (which carries the keeper), the init for containers,
//! and the program of the demo image.

mod nested;

fn main() {
    nested::Nested {
        package: "wharf-forge",
        directories: &["oci/forge", "oci/protocol", "oci/keeper"],
        target: "hands",
        has_failpoints: true,
        binaries: &[("wharf-forge", "WHARF_FORGE")],
    }
    .build();
    nested::Nested {
        package: "wharf-keeper",
        directories: &["oci/keeper"],
        target: "keeper",
        has_failpoints: false,
        binaries: &[("wharf-init", "WHARF_INIT")],
    }
    .build();
    nested::Nested {
        package: "wharf-demo",
        directories: &["demo"],
        target: "hands",
        has_failpoints: false,
        binaries: &[("wharf-demo", "WHARF_DEMO")],
    }
    .build();
}
