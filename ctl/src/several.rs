//! The same for several names: one that fails does not keep the others from being served.

use crate::connection::Client;
use crate::failure;
use crate::output;
use clap::Args;
use std::future::Future;
use std::path::Path;
use wharf_bus::proxy::ContainerProxy;

/// The containers that a command is for.
#[derive(Debug, Args)]
pub struct Containers {
    /// Name, id, or unique beginning of an id
    #[arg(id = "containers", required = true, value_name = "CONTAINER")]
    pub names: Vec<String>,
}

impl Containers {
    /// Carry out `act` for every container and print its name. The exit code is 1 if one failed.
    pub async fn for_each<A, F, T>(&self, socket: &Path, act: A) -> anyhow::Result<u8>
    where
        A: Fn(ContainerProxy<'static>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, wharf_bus::Error>> + Send,
    {
        let client = Client::connect(socket).await?;
        for_each(&self.names, |name| {
            let (client, act) = (client.clone(), act.clone());
            async move {
                act(client.container(&name).await?).await?;
                Ok(name)
            }
        })
        .await
    }
}

/// Carry out `act` for every name, all at once, so that stopping many takes no longer than the slowest of them. Print
/// what each returns in the order of the names. The exit code is 1 if one failed.
pub async fn for_each<A, F>(names: &[String], act: A) -> anyhow::Result<u8>
where
    A: Fn(String) -> F,
    F: Future<Output = anyhow::Result<String>> + Send + 'static,
{
    let mut code = 0;
    for (_, task) in begin(names, &act) {
        code |= tell(task.await?)?;
    }
    Ok(code)
}

/// The same where one may have to wait for another: as long as some are served, those that were refused are tried again.
pub async fn for_each_in_turn<A, F>(names: &[String], act: A) -> anyhow::Result<u8>
where
    A: Fn(String) -> F,
    F: Future<Output = anyhow::Result<String>> + Send + 'static,
{
    let mut left = names.to_vec();
    loop {
        let (mut refused, mut progress) = (Vec::new(), false);
        for (name, task) in begin(&left, &act) {
            match task.await? {
                Ok(text) => {
                    tell(Ok(text))?;
                    progress = true;
                }
                Err(error) => refused.push((name, error)),
            }
        }
        if !progress || refused.is_empty() {
            return refused.into_iter().try_fold(0, |code, (_, error)| Ok(code | tell(Err(error))?));
        }
        left = refused.into_iter().map(|(name, _)| name).collect();
    }
}

type Begun = tokio::task::JoinHandle<anyhow::Result<String>>;

fn begin<A, F>(names: &[String], act: &A) -> Vec<(String, Begun)>
where
    A: Fn(String) -> F,
    F: Future<Output = anyhow::Result<String>> + Send + 'static,
{
    names.iter().map(|name| (name.clone(), tokio::spawn(act(name.clone())))).collect()
}

/// Say what came of one. Returns its share of the exit code.
fn tell(outcome: anyhow::Result<String>) -> anyhow::Result<u8> {
    match outcome {
        Ok(text) if text.is_empty() => Ok(0),
        Ok(text) => output::line(&text).map(|()| 0),
        Err(error) => {
            output::say(&failure::message(&error));
            Ok(1)
        }
    }
}
