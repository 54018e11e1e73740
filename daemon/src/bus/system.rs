//! The system bus, where there is one: the same objects under the name `org.wharf1`. When the bus dies we come back
//! to it; when there is none we look for it from time to time.

use crate::api::Api;
use crate::bus::publish;
use anyhow::Context;
use std::sync::Arc;
use std::time::Duration;
use wharf_bus::names;
use zbus::connection;

/// Between attempts: soon enough after a restart of the bus, seldom enough where there is none.
const RETRY: Duration = Duration::from_secs(1);
/// Attempts become rarer up to this.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Serve on the system bus, for ever.
pub async fn serve(api: Arc<Api>) {
    let mut pause = RETRY;
    loop {
        match serve_once(&api).await {
            Ok(()) => {
                tracing::info!("the system bus has gone");
                pause = RETRY;
            }
            Err(error) => {
                tracing::debug!(error = %format!("{error:#}"), "no system bus");
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn serve_once(api: &Arc<Api>) -> anyhow::Result<()> {
    let (builder, notices) = publish::serve(connection::Builder::system(), api);
    let connection = builder.name(names::BUS_NAME).build().await.context("joining the system bus")?;
    tracing::info!(name = names::BUS_NAME, "serving on the system bus");
    publish::publish(&connection, api, notices).await
}
