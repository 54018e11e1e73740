//! A connection inside the container's network. That there is one is all that a tcp probe asks, even if the other side
//! closes it at once.

use super::means::Means;
use super::{Trouble, plain};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::TcpStream;
use wharf_oci::Family;

/// Connect with the first address of `host` that answers.
pub async fn connect(means: &Means, host: &str, port: u16) -> Result<TcpStream, Trouble> {
    let mut trouble = None;
    for address in addresses(host, port).await? {
        let family = if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        match means.socket(family).await?.connect(address).await {
            Ok(stream) => {
                // A request comes in several small writes, which are not to wait for each other's acknowledgement.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => {
                let why = Trouble::Bad(format!("connecting to {address}: {}", plain(&error)));
                // The first address is the one that was meant.
                trouble.get_or_insert(why);
            }
        }
    }
    Err(trouble.unwrap_or_else(|| Trouble::Bad(format!("{host} has no address"))))
}

/// What a host is called is the host's business, not the image's: its /etc/hosts and resolvers do not count.
async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, Trouble> {
    if let Ok(address) = unbracketed(host).parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(Trouble::Bad(format!("resolving {host}: {}", plain(&error)))),
    }
}

/// An IPv6 address may come as in a URL.
pub fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
