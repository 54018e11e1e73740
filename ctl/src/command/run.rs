//! `ctl run`: create a container and start it, in the foreground or not.

use crate::connection::Client;
use crate::container_flags::ContainerFlags;
use crate::foreground::{self, Caught, Ending, Exits, Foreground, Manners};
use crate::id_file::IdFile;
use crate::output;
use crate::standalone::Standalone;
use crate::terminal;
use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};
use wharf_bus::names;
use wharf_bus::proxy::ContainerProxy;
use wharf_bus::spec::Spec;
use wharf_bus::types::StartOptions;

const EXAMPLES: &str = "\
Exit code: the container's own; 128+N if signal N ended it, 127 if the command does not exist, 126 if it cannot \
be executed, 125 for any other failure of ctl or wharfd.
When the reader of ctl's output goes away (| head), the container ends too, but with --sig-proxy=false.

Examples:
  ctl run --rm busybox echo hello            run a command and throw the container away
  ctl run -it --rm busybox sh                a shell; ctrl-p ctrl-q leaves it running
  ctl run -d --name web -m 64m --cpus 0.5 wharf/demo
                                             a service in the background, with limits
  ctl run --rm -v /srv/data:/data:ro busybox ls /data
  tar c . | ctl run --rm -i busybox tar t    data through standard input
  ctl run --rm --rootfs /srv/debian bash -c 'id'
  sudo ctl run --standalone wharf/demo       without a running wharfd";

/// Create a container from an image and run it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_help_flag = true,
    override_usage = "ctl run [OPTIONS] IMAGE [COMMAND [ARG]...]\n       ctl run [OPTIONS] --rootfs DIR [COMMAND [ARG]...]")]
pub struct Arguments {
    /// Run it in the background and print its id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    manners: Manners,
    /// Write its id to this file, which must not exist yet
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Start a wharfd for this container alone, and end it afterwards
    #[arg(long, conflicts_with = "detach")]
    standalone: bool,
    #[command(flatten)]
    container: ContainerFlags,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        if !self.detach {
            terminal::require(self.container.interactive, self.container.tty)?;
        }
        let id_file = self.cidfile.as_deref().map(IdFile::create).transpose()?;
        let settings = Settings {
            detach: self.detach,
            // With a daemon that ends with ctl there is nowhere to leave it.
            manners: if self.standalone { self.manners.without_detaching() } else { self.manners },
            interactive: self.container.interactive,
            private: self.standalone,
        };
        let mut spec = self.container.spec()?;
        if settings.detach {
            return settings.leave(socket, &spec, id_file).await;
        }
        // Before anything happens: a signal may come at once, and must not leave things half done.
        let mut caught = Caught::new()?;
        if !self.standalone {
            return settings.stay(socket, &spec, id_file, &mut caught).await;
        }
        // Its daemon ends with it, so there is no later in which it could be looked at.
        spec.remove = true;
        let mut standalone = Standalone::start()?;
        let ready = tokio::select! {
            ready = standalone.ready() => ready,
            number = caught.next() => {
                standalone.finish().await?;
                return Ok(Ending::Left(number).code());
            }
        };
        let result = match ready {
            Ok(()) => settings.stay(standalone.socket(), &spec, id_file, &mut caught).await,
            Err(error) => Err(error),
        };
        terminal::restore();
        standalone.finish().await?;
        result
    }
}

struct Settings {
    detach: bool,
    manners: Manners,
    interactive: bool,
    private: bool,
}

impl Settings {
    /// In the background.
    async fn leave(self, socket: &Path, spec: &Spec, id_file: Option<IdFile>) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        let (path, _) = client.manager().await?.run(&document(spec)?, StartOptions::default()).await?;
        let id = names::container_id(&path).context("wharfd returned no container")?.to_owned();
        keep(id_file, &id)?;
        warn(&client.container_at(path).await?).await;
        output::line(&id)?;
        Ok(0)
    }

    /// In the foreground.
    async fn stay(
        self,
        socket: &Path,
        spec: &Spec,
        id_file: Option<IdFile>,
        caught: &mut Caught,
    ) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        let manager = client.manager().await?;
        // Before the start: an exit may come at once.
        let exits = Exits::watch(&client).await?;
        let options = foreground::attached(spec.terminal, spec.stdin);
        let (path, streams) = manager.run(&document(spec)?, options).await?;
        let id = names::container_id(&path).context("wharfd returned no container")?.to_owned();
        keep(id_file, &id)?;
        let container = client.container_at(path).await?;
        // Beside the output: nobody should wait for a warning.
        let warned = container.clone();
        tokio::spawn(async move { warn(&warned).await });
        let foreground = Foreground {
            client,
            container,
            id,
            streams,
            exits,
            interactive: self.interactive,
            manners: self.manners,
            ours: true,
            private: self.private,
        };
        Ok(foreground.attend(caught).await?.code())
    }
}

fn document(spec: &Spec) -> anyhow::Result<String> {
    serde_json::to_string(spec).context("writing the spec document")
}

fn keep(file: Option<IdFile>, id: &str) -> anyhow::Result<()> {
    file.map_or(Ok(()), |file| file.keep(id))
}

/// Say what the user should know about a container that was just made.
pub async fn warn(container: &ContainerProxy<'_>) {
    // With --rm it may be gone already, and so may its warnings.
    if let Ok(warnings) = container.warnings().await {
        warnings.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
    }
}
