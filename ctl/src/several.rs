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
    let tasks: Vec<_> = names.iter().map(|name| tokio::spawn(act(name.clone()))).collect();
    for task in tasks {
        match task.await? {
            Ok(text) if text.is_empty() => {}
            Ok(text) => output::line(&text)?,
            Err(error) => {
                output::say(&failure::message(&error));
                code = 1;
            }
        }
    }
    Ok(code)
}
