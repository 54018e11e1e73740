//! What a container is: the document that was asked for and what was decided once and for all when it was
//! created. From it, each start makes a bundle.

use crate::ids::RANGE_SIZE;
use crate::notify::ADDRESS;
use crate::supervision::healthcheck::{self, OfImage};
use crate::supervision::probe::{Handlers, probes};
use crate::supervision::{self, requirement};
use crate::view::View;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use wharf_bus::{Error, Spec, spec};
use wharf_oci::bundle::{self, Bundle, Host, config};
use wharf_oci::image::{Image, NotFound, Store};
use wharf_supervisor as core;
use wharf_supervisor::Id;

/// The format of what is written down. It changes when an older wharfd would misunderstand it; a field of the document
/// that it does not know is an error to it anyhow.
const VERSION: u32 = 1;

/// Docker's grace period, which its users expect.
const STOP_TIMEOUT: f64 = 10.0;

/// A container's definition, as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// Of the format.
    pub version: u32,
    /// What was asked for, with its name.
    pub spec: Spec,
    /// The id of the image; the name may point to another one later.
    pub image_id: Option<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Number of the signal that asks it to end.
    pub stop_signal: i32,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Microseconds since 1970.
    pub created_at: u64,
    /// Does it have ids of its own?
    pub private_ids: bool,
    /// The health check that the document and the image make together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<spec::Healthcheck>,
    /// Limits that are about to be in force instead of those of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updating: Option<spec::Resources>,
}

impl Definition {
    /// Check a document and settle what does not depend on a start. The error names the field.
    pub fn new(id: Id, spec: Spec, images: &Store, host: &Host, now: u64) -> Result<Self, Error> {
        let image = match (&spec.image, &spec.rootfs) {
            (Some(name), None) => Some(resolve(images, name)?),
            (None, Some(path)) => {
                check_rootfs(path)?;
                None
            }
            (None, None) => {
                return Err(Error::InvalidSpec("image: give an image, or a rootfs directory".into()));
            }
            (Some(_), Some(_)) => {
                return Err(Error::InvalidSpec("rootfs: give either an image or a rootfs, not both".into()));
            }
        };
        if spec.stop_timeout.is_some_and(|seconds| !(0.0..=31_536_000.0).contains(&seconds)) {
            return Err(Error::InvalidSpec("stopTimeout: give seconds from 0 to 31536000 (a year)".into()));
        }
        check_log(&spec.log)?;
        let private_ids = match spec.user_namespace {
            spec::UserNamespace::Private => true,
            spec::UserNamespace::Host => false,
        };
        // Any range will do to find out whether the rest is right.
        let id_map = private_ids.then_some(wharf_oci::IdMap { host: RANGE_SIZE, size: RANGE_SIZE });
        let config = wishes(id, &spec, id_map, None);
        let image_config = image.as_ref().and_then(|image| image.config.config().as_ref());
        let mut bundle = bundle::build(&config, image_config, host).map_err(invalid)?;
        let of_image = image.as_ref().map(|image| OfImage::read(&image.raw_config)).unwrap_or_default();
        let healthcheck = healthcheck::settle(spec.healthcheck.as_ref(), &of_image)?;
        bundle.warnings.extend(of_image.warning);
        Ok(Self {
            version: VERSION,
            healthcheck,
            image_id: image.map(|image| image.id.to_string()),
            command: bundle.process.args.clone(),
            stop_signal: bundle.stop_signal,
            warnings: bundle.warnings,
            created_at: now,
            private_ids,
            spec,
            updating: None,
        })
    }

    /// The definition behind what is shown of a container.
    pub fn of(view: &View) -> Self {
        Self {
            version: VERSION,
            spec: Spec::clone(&view.spec),
            image_id: (!view.image_id.is_empty()).then(|| view.image_id.clone()),
            command: view.command.clone(),
            stop_signal: view.stop_signal,
            warnings: view.warnings.clone(),
            created_at: view.created_at,
            private_ids: view.id_map.1 > 0,
            healthcheck: view.healthcheck.clone(),
            updating: None,
        }
    }

    /// As it was written down.
    pub fn parse(json: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        // First of all, since what follows may look like damage otherwise.
        let Head { version } = serde_json::from_str(json).context("its definition")?;
        if version > VERSION {
            anyhow::bail!(
                "its definition is of a later wharfd (version {version}, known up to {VERSION}): install that again"
            );
        }
        serde_json::from_str(json).context("its definition")
    }

    /// As it is to be written down.
    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a definition has string keys only")
    }

    /// The same with other limits. The error names the field.
    pub fn with_resources(
        &self,
        id: Id,
        changes: spec::Resources,
        host: &Host,
    ) -> Result<(Self, wharf_oci::Limits), Error> {
        let mut definition = self.clone();
        merge(&mut definition.spec.resources, changes);
        let config = wishes(id, &definition.spec, None, None);
        let limits = bundle::limits::limits(&config.resources, host).map_err(invalid)?;
        Ok((definition, limits))
    }

    /// What decisions depend on, and how its probes and hooks are carried out.
    pub fn plan(&self) -> Result<(core::Spec, Handlers), Error> {
        let name = self.spec.name.as_deref().unwrap_or_default();
        let seconds = self.spec.stop_timeout.unwrap_or(STOP_TIMEOUT);
        let name = name.parse().map_err(|error: core::BadName| Error::InvalidSpec(error.to_string()))?;
        let stop = core::Stop {
            signal: core::Signal::new(self.stop_signal)
                .map_err(|error| Error::InvalidSpec(error.to_string()))?,
            grace: Duration::from_secs_f64(seconds),
        };
        let restart = supervision::restart::restart(&self.spec.restart)?;
        let (probes, handlers) = probes(&self.spec, self.healthcheck.as_ref(), stop.grace)?;
        let hooks =
            core::Hooks { post_start: handlers.post_start.is_some(), pre_stop: handlers.pre_stop.is_some() };
        let notify = requirement::notify(&self.spec)?;
        let requires = requirement::requires(&self.spec, &name)?;
        if self.spec.remove && restart.ever_restarts() {
            return Err(Error::InvalidSpec(
                "remove: a container that is restarted cannot be removed when it ends; leave out one of both"
                    .into(),
            ));
        }
        let auto_remove = self.spec.remove;
        let spec = core::Spec { name, stop, auto_remove, restart, probes, hooks, notify, requires };
        Ok((spec, handlers))
    }

    /// What a start or an exec is made from, and the image's layers, topmost first (none with a rootfs).
    pub fn bundle(
        &self,
        id: Id,
        first_id: Option<u32>,
        terminal: Option<wharf_oci::TerminalSize>,
        init: &std::path::Path,
        images: &Store,
        host: &Host,
    ) -> Result<(Bundle, Option<Image>), Error> {
        let id_map = first_id.map(|host| wharf_oci::IdMap { host, size: RANGE_SIZE });
        let mut config = wishes(id, &self.spec, id_map, self.spec.init.then_some(init));
        if config.terminal.is_some() && terminal.is_some() {
            config.terminal = terminal;
        }
        let image = self.image_id.as_deref().map(|image| resolve(images, image)).transpose()?;
        let image_config = image.as_ref().and_then(|image| image.config.config().as_ref());
        let bundle = bundle::build(&config, image_config, host).map_err(invalid)?;
        Ok((bundle, image))
    }
}

fn resolve(images: &Store, name: &str) -> Result<Image, Error> {
    images.resolve(name).map_err(no_such_image)
}

/// An image that was not found, or a store that could not be looked through.
pub fn no_such_image(error: NotFound) -> Error {
    let broken = matches!(error, NotFound::Store(_));
    let text = format!("{:#}", anyhow::Error::from(error));
    if broken { Error::Failed(text) } else { Error::NoSuchImage(text) }
}

/// The field and the fix are in the message.
pub fn invalid(error: bundle::Invalid) -> Error {
    Error::InvalidSpec(error.to_string())
}

fn check_rootfs(path: &str) -> Result<(), Error> {
    let bad = |problem: &str| Err(Error::InvalidSpec(format!("rootfs: {path:?} {problem}")));
    if !path.starts_with('/') {
        return bad("is not absolute; give the whole path");
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return bad("is no directory; give one that holds a root file system"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return bad("does not exist on the host; make it first, or correct the path");
        }
        Err(error) => return bad(&format!("cannot be used: {error}")),
    }
    // Nothing that could be a root file system is without any of these.
    if ["bin", "usr", "sbin", "lib", "etc"].iter().any(|name| std::path::Path::new(path).join(name).exists())
    {
        return Ok(());
    }
    bad("has none of bin, usr, sbin, lib, etc: it is no root file system; unpack one into it")
}

fn check_log(log: &spec::Log) -> Result<(), Error> {
    if log.max_size.is_some_and(|size| size < 4096) {
        return Err(Error::InvalidSpec("log.maxSize: give at least 4096 bytes".into()));
    }
    if log.max_files.is_some_and(|files| !(1..=1000).contains(&files)) {
        return Err(Error::InvalidSpec("log.maxFiles: give 1 to 1000".into()));
    }
    Ok(())
}

/// What sd_notify(3) and sd_watchdog_enabled(3) look at.
fn notify_env(spec: &Spec) -> Vec<(String, String)> {
    let Some(notify) = &spec.notify else { return Vec::new() };
    let mut env = vec![("NOTIFY_SOCKET".to_owned(), ADDRESS.to_owned())];
    if let Some(seconds) = notify.watchdog_seconds {
        env.push(("WATCHDOG_USEC".to_owned(), Duration::from_secs_f64(seconds).as_micros().to_string()));
    }
    env
}

/// From the document's shapes to the bundle's.
fn wishes(
    id: Id,
    spec: &Spec,
    id_map: Option<wharf_oci::IdMap>,
    init: Option<&std::path::Path>,
) -> config::Config {
    let size = wharf_oci::TerminalSize { rows: 24, columns: 80 };
    let resources = &spec.resources;
    let security = &spec.security;
    config::Config {
        entrypoint: spec.entrypoint.clone(),
        command: spec.command.clone(),
        env: spec.env.clone().into_iter().chain(notify_env(spec)).collect(),
        working_directory: spec.working_directory.clone(),
        user: spec.user.clone(),
        groups: spec.groups.clone(),
        hostname: spec.hostname.clone(),
        terminal: spec.terminal.then_some(size),
        init: init.map(Into::into),
        read_only: spec.read_only,
        stop_signal: spec.stop_signal.clone(),
        network: match spec.network {
            spec::Network::None => config::Network::None,
            spec::Network::Host => config::Network::Host,
        },
        volumes: spec
            .volumes
            .iter()
            .map(|volume| config::Volume {
                source: volume.source.clone(),
                target: volume.target.clone(),
                options: volume.options.clone(),
            })
            .collect(),
        tmpfs: spec
            .tmpfs
            .iter()
            .map(|tmpfs| config::Tmpfs {
                target: tmpfs.target.clone(),
                size: tmpfs.size,
                mode: tmpfs.mode.clone(),
                options: tmpfs.options.clone(),
            })
            .collect(),
        resources: config::Resources {
            cpus: resources.cpus,
            cpu_shares: resources.cpu_shares,
            cpuset_cpus: resources.cpuset_cpus.clone(),
            cpuset_mems: resources.cpuset_mems.clone(),
            memory: resources.memory,
            memory_swap: resources.memory_swap,
            memory_reservation: resources.memory_reservation,
            pids_limit: resources.pids_limit,
            blkio_weight: resources.blkio_weight,
        },
        security: config::Security {
            cap_add: security.cap_add.clone(),
            cap_drop: security.cap_drop.clone(),
            new_privileges: security.new_privileges,
            seccomp: match &security.seccomp {
                spec::Seccomp::Default => config::Seccomp::Default,
                spec::Seccomp::Unconfined => config::Seccomp::Unconfined,
                spec::Seccomp::Profile(profile) => config::Seccomp::Profile(profile.clone()),
            },
            mask: security.mask.clone(),
            unmask: security.unmask.clone(),
        },
        ulimits: spec
            .ulimits
            .iter()
            .map(|limit| config::Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
            .collect(),
        sysctls: spec.sysctls.clone().into_iter().collect(),
        shm_size: spec.shm_size,
        oom_score_adj: spec.oom_score_adj,
        cgroup_mount: spec.cgroup_mount,
        ..config::Config::new(id.to_string(), id_map)
    }
}

/// Absent fields stay as they are.
fn merge(resources: &mut spec::Resources, changes: spec::Resources) {
    fn field<T>(old: &mut Option<T>, new: Option<T>) {
        if new.is_some() {
            *old = new;
        }
    }
    let spec::Resources {
        cpus,
        cpu_shares,
        cpuset_cpus,
        cpuset_mems,
        memory,
        memory_swap,
        memory_reservation,
        pids_limit,
        blkio_weight,
    } = changes;
    field(&mut resources.cpus, cpus);
    field(&mut resources.cpu_shares, cpu_shares);
    field(&mut resources.cpuset_cpus, cpuset_cpus);
    field(&mut resources.cpuset_mems, cpuset_mems);
    field(&mut resources.memory, memory);
    field(&mut resources.memory_swap, memory_swap);
    field(&mut resources.memory_reservation, memory_reservation);
    field(&mut resources.pids_limit, pids_limit);
    field(&mut resources.blkio_weight, blkio_weight);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_first_release_wrote_is_understood_and_it_would_understand_ours() {
        for record in crate::store::tests::of_the_first_release() {
            let definition = Definition::parse(&record.definition).expect("the old format");
            let (spec, _) = definition.plan().expect("as good as it was");
            assert_eq!(spec.name.as_str(), record.name);
            assert!(!spec.restart.ever_restarts(), "as it was before");
            let written = serde_json::from_str(&definition.to_json()).expect("JSON");
            let old = serde_json::from_str(&record.definition).expect("JSON");
            crate::store::tests::assert_contains(&written, &old);
        }
    }

    #[test]
    fn what_a_later_release_wrote_is_refused_whole() {
        let known = crate::store::tests::of_the_first_release().remove(0).definition;
        let error = |text: String| format!("{:#}", Definition::parse(&text).expect_err("from the future"));
        let later = known.replacen(r#""version":1"#, r#""version":2"#, 1).replace(r#""spec""#, r#""wish""#);
        assert!(error(later).contains("later wharfd"));
        assert!(error(known.replacen(r#""spec":{"#, r#""spec":{"colour":"red","#, 1)).contains("colour"));
    }
}
