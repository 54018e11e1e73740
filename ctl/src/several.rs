//! The same for several names: one that fails does not keep the others from being served.

use crate::failure;
use crate::output;
use std::future::Future;

/// At once; more would only queue up in the daemon.
const AT_ONCE: usize = 32;

/// Carry out `act` for every name and print what it returns, in the order of the names. The exit code is 1 if
/// one failed.
pub async fn for_each<A, F>(names: &[String], act: A) -> anyhow::Result<u8>
where
    A: Fn(String) -> F,
    F: Future<Output = anyhow::Result<String>> + Send + 'static,
{
    let mut code = 0;
    for some in names.chunks(AT_ONCE) {
        let tasks: Vec<_> = some.iter().map(|name| tokio::spawn(act(name.clone()))).collect();
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
    }
    Ok(code)
}
