//! `ctl image load`: take images from an archive or a directory into the store.

use crate::connection::{Client, Signals};
use crate::failure;
use crate::output;
use crate::record;
use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use wharf_bus::types::{LoadOptions, LoadedImage};
use zbus::wire::Fd;

const EXAMPLES: &str = "\
Reads an OCI image layout (a directory or a tar) or what `docker save` writes, with gzip or zstd, and prints the \
names of what was loaded.

Examples:
  ctl image load busybox.tar
  ctl image load ./layout-directory --name busybox:latest
  docker save busybox | ctl image load";

/// Load images from an OCI layout or a docker archive
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// File or directory; - is standard input
    #[arg(short, long, value_name = "SOURCE", conflicts_with = "sources")]
    input: Option<String>,
    /// Name for an archive's only image [default: what the archive says]
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,
    /// Do not show progress
    #[arg(short, long)]
    quiet: bool,
    /// Files or directories; - is standard input [default: -]
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let mut sources = self.sources;
        sources.extend(self.input);
        if sources.is_empty() {
            if io::stdin().is_terminal() {
                bail!(
                    "give a file or directory, or pipe an archive in: `docker save busybox | ctl image load`"
                );
            }
            sources.push("-".to_owned());
        }
        if self.name.is_some() && sources.len() > 1 {
            bail!("--name names one image; give one source with it");
        }
        let client = Client::connect(socket).await?;
        let mut code = 0;
        for source in &sources {
            match load(&client, source, self.name.clone(), self.quiet).await {
                Ok(images) => say_loaded(&images)?,
                Err(error) => {
                    output::say(&failure::message(&error));
                    code = 1;
                }
            }
        }
        Ok(code)
    }
}

fn say_loaded(images: &[LoadedImage]) -> anyhow::Result<()> {
    for LoadedImage { image, notes } in images {
        if image.names.is_empty() {
            output::line(&format!("Loaded image ID: {}", image.id))?;
        }
        for name in &image.names {
            output::line(&format!("Loaded image: {}", record::familiar(name)))?;
        }
        let name = image.names.first().map_or(image.id.as_str(), |name| record::familiar(name));
        for note in notes {
            output::say(&format!("{name}: {note}"));
        }
    }
    Ok(())
}

async fn load(
    client: &Client,
    source: &str,
    name: Option<String>,
    quiet: bool,
) -> anyhow::Result<Vec<LoadedImage>> {
    let (descriptor, label) = open(source)?;
    let signals = client.signals("LoadProgress").await?;
    let manager = client.manager().await?;
    let options = LoadOptions { name, source: Some(label.clone()) };
    let loading = async { manager.load_image(Fd::from(descriptor.as_fd()), options).await };
    let showing = show(signals, &label, quiet);
    tokio::pin!(loading, showing);
    tokio::select! {
        images = &mut loading => Ok(images?),
        // The signals end with the connection; the call says why.
        () = &mut showing => Ok(loading.await?),
    }
}

/// The descriptor, and what to call it.
fn open(source: &str) -> anyhow::Result<(OwnedFd, String)> {
    if source == "-" {
        let stdin = io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
        return Ok((stdin, "standard input".to_owned()));
    }
    let file = File::open(source).with_context(|| format!("opening {source}"))?;
    Ok((file.into(), source.to_owned()))
}

/// Show progress until dropped: a bar on a terminal, else a line for each layer.
async fn show(mut signals: Signals, label: &str, quiet: bool) {
    let mut bar = (!quiet && io::stderr().is_terminal()).then(Bar::new);
    let mut announced = 0;
    while let Some(message) = signals.next().await {
        let body = message.body();
        let Ok((source, layer, layers, done, size)) = body.deserialize::<(String, u32, u32, u64, u64)>()
        else {
            continue;
        };
        if quiet || source != label {
            continue;
        }
        match &mut bar {
            Some(bar) => bar.show(layer, layers, done, size),
            None if layer > announced => {
                announced = layer;
                output::say(&format!("{label}: layer {layer} of {layers}"));
            }
            None => {}
        }
    }
}

/// A progress bar that takes itself away.
struct Bar {
    bar: ProgressBar,
    /// The layer that is shown, 0 while the source is read through, and its size.
    shown: Option<(u32, u64)>,
}

impl Bar {
    /// Not to be seen before there is something to show.
    fn new() -> Self {
        Self { bar: ProgressBar::hidden(), shown: None }
    }

    fn show(&mut self, layer: u32, layers: u32, done: u64, size: u64) {
        if self.shown != Some((layer, size)) {
            self.shown = Some((layer, size));
            self.begin(layer, layers, size);
        }
        self.bar.set_position(done);
    }

    fn begin(&self, layer: u32, layers: u32, size: u64) {
        let template = if size > 0 {
            "{msg}  {bar:30}  {binary_bytes} / {binary_total_bytes}  {binary_bytes_per_sec}"
        } else {
            "{msg}  {spinner}  {binary_bytes}  {binary_bytes_per_sec}"
        };
        self.bar.reset();
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        match size {
            0 => self.bar.unset_length(),
            size => self.bar.set_length(size),
        }
        self.bar.set_message(match layer {
            0 => "reading".to_owned(),
            layer => format!("layer {layer} of {layers}"),
        });
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
