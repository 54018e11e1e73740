//! What lists have in common: filters, a format, ids alone, everything in full.

use crate::filter::Filters;
use crate::output;
use crate::record;
use crate::table::Table;
use crate::template::Format;
use clap::Args;
use serde_json::Value;

/// How to list.
#[derive(Debug, Args)]
pub struct Listing {
    /// Show only those that pass; may be given several times
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// table, json, or a template such as '{{.Name}}', with "table " in front for a header
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = Format::parse, conflicts_with = "quiet")]
    pub format: Format,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Show everything in full
    #[arg(long)]
    no_trunc: bool,
}

impl Listing {
    /// The filters, of those that there are.
    pub fn filters(&self, known: &[&str]) -> anyhow::Result<Filters> {
        Filters::parse(&self.filter, known)
    }

    /// Print the records. `table` makes one of them, with everything in full or not.
    pub fn show(&self, records: &[Value], table: fn(&[Value], bool) -> Table) -> anyhow::Result<()> {
        let text = if self.quiet {
            records
                .iter()
                .map(|record| record::text(record, "Id"))
                .map(|id| format!("{}\n", if self.no_trunc { id } else { record::short_id(id) }))
                .collect()
        } else {
            self.format.list(records, || table(records, self.no_trunc).fitted(!self.no_trunc))?
        };
        output::write(&text)
    }
}
