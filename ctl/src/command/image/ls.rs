//! `ctl image ls`: list images.

use crate::connection::Client;
use crate::listing::Listing;
use crate::moment;
use crate::record;
use crate::table::{Cell, Colour, Column, Table};
use crate::template::Format;
use clap::Args;
use serde_json::Value;
use std::path::Path;
use wharf_bus::types::ImageInfo;

const FILTERS: [&str; 2] = ["name", "id"];

/// List images
#[derive(Debug, Args)]
#[command(
    after_help = "Filters: name=PART, id=BEGINNING.\n\nExamples:\n  ctl image ls\n  ctl image ls --format '{{.Name}} {{.Size}}'"
)]
pub struct Arguments {
    #[command(flatten)]
    listing: Listing,
    /// Show only images with this in their name
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let mut listing = self.listing;
        listing.filter.extend(self.name.map(|name| format!("name={name}")));
        let filters = listing.filters(&FILTERS)?;
        let client = Client::connect(socket).await?;
        let mut images = client.manager().await?.list_images().await?;
        images.sort_by(|a, b| (&a.names, &a.id).cmp(&(&b.names, &b.id)));
        let now = moment::now();
        let mut records: Vec<Value> = images
            .iter()
            .flat_map(|image| match listing.format {
                Format::Json => vec![record::image(image, now)],
                Format::Table | Format::Template(_) => each_name(image, now),
            })
            .filter(|record| filters.admits(record))
            .collect();
        if listing.quiet {
            records.sort_by(|a, b| record::text(a, "Id").cmp(record::text(b, "Id")));
            records.dedup_by(|a, b| record::text(a, "Id") == record::text(b, "Id"));
        }
        listing.show(&records, table)?;
        Ok(0)
    }
}

/// A record for each name; an image without one has a record too.
fn each_name(image: &ImageInfo, now: u64) -> Vec<Value> {
    if image.names.is_empty() {
        return vec![record::image(image, now)];
    }
    let named = |name: &String| ImageInfo { names: vec![name.clone()], ..image.clone() };
    image.names.iter().map(|name| record::image(&named(name), now)).collect()
}

fn table(records: &[Value], in_full: bool) -> Table {
    let mut table = Table::new(&[
        Column::Elastic("NAME"),
        Column::Left("ID"),
        Column::Right("AGE"),
        Column::Right("SIZE"),
        Column::Left("PLATFORM"),
    ]);
    for record in records {
        let id = record::text(record, "Id");
        table.row([
            match record::text(record, "Name") {
                "" => Cell::coloured("(no name)", Some(Colour::Dim)),
                name if in_full => name.into(),
                name => record::familiar(name).into(),
            },
            if in_full { id.into() } else { record::short_id(id).into() },
            record::text(record, "Age").into(),
            record::text(record, "Size").into(),
            record::text(record, "Platform").into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_line() {
        let info = ImageInfo {
            id: "sha256:0123456789abcdef".into(),
            digest: "sha256:00".into(),
            names: vec!["docker.io/library/busybox:latest".into(), "quay.io/x/y:1".into()],
            size: 4 << 20,
            created: 1_000_000,
            platform: "linux/amd64".into(),
        };
        let text = table(&each_name(&info, 61_000_000), false).render(None, false);
        assert_eq!(
            text,
            "NAME             ID             AGE   SIZE   PLATFORM\n\
             busybox:latest   0123456789ab    1m   4MiB   linux/amd64\n\
             quay.io/x/y:1    0123456789ab    1m   4MiB   linux/amd64\n"
        );
    }
}
