//! `header-based-testing-filter`: keeps the endpoints that the request names, for conformance tests. Clients choose
//! their endpoints with it: it is for no other use.
//!
//! Reads the request header `test-epp-endpoint-selection`, a list of IP addresses, with or without port, separated by
//! commas. Of an IP address alone one endpoint is kept, and one of each IP address in all. A request without the
//! header has no candidates. Of a value, the first 512 bytes and the first 16
//! addresses count; a request whose header leaves no endpoint gets a local reply, whatever the failure mode. No parameters.
//!
//! ```yaml
//! - type: header-based-testing-filter
//! ```

use std::net::{IpAddr, SocketAddr};

use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Cycle, Filter, HeaderId, Needs, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "header-based-testing-filter",
    former_names: &[],
    provides: &[Capability::Filter],
    references: &[],
    build,
    parity: Parity::of(Standing::Differs(
        "addresses are compared as numbers, and 16 of them in 512 bytes of the header are read",
    )),
};

/// Addresses of a value that count: each is compared with those of all candidates.
const MAX_NAMED: usize = 16;

const HEADER: &str = "test-epp-endpoint-selection";

#[derive(Debug)]
struct HeaderBasedTestingFilter(HeaderId);

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let header = build.header(HEADER, HEADER);
    Capabilities::filter(HeaderBasedTestingFilter(header))
}

/// An address that the header names.
#[derive(Debug, Clone, Copy)]
struct Named {
    ip: IpAddr,
    port: Option<u16>,
}

impl Named {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self {
                ip: address.ip(),
                port: Some(address.port()),
            });
        }
        let bare = text.trim_matches(['[', ']']);
        let ip = bare.parse().ok()?;
        Some(Self { ip, port: None })
    }

    fn means(self, address: SocketAddr) -> bool {
        self.ip == address.ip() && self.port.is_none_or(|port| port == address.port())
    }
}

impl Filter for HeaderBasedTestingFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        let value = cycle.request.header(self.0).unwrap_or_default();
        let named = value.split(|byte| *byte == b',').take(MAX_NAMED);
        let named = named.filter_map(|text| std::str::from_utf8(text).ok());
        let addresses = candidates.iter().rev().filter_map(|slot| {
            let endpoint = cycle.pool.get(*slot)?;
            Some((*slot, endpoint.address.parse::<SocketAddr>().ok()?))
        });
        // The last endpoint comes first: the Endpoint Picker's table of addresses has the one that came last.
        let addresses: Vec<(Slot, SocketAddr)> = addresses.collect();
        let mut kept: Vec<(Slot, IpAddr)> = Vec::new();
        for named in named.filter_map(Named::read) {
            let meant = addresses.iter().find(|(_, address)| named.means(*address));
            let is_new = kept.iter().all(|(_, ip)| *ip != named.ip);
            kept.extend(meant.filter(|_| is_new).map(|(slot, _)| (*slot, named.ip)));
        }
        candidates.retain(|slot| kept.iter().any(|(kept, _)| kept == slot));
    }

    fn needs(&self) -> Needs {
        Needs {
            choice: true,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{HeaderValues, RequestView};
    use crate::testing::pool;

    fn kept(value: Option<&str>) -> Vec<u32> {
        let mut pool = pool([(); 5].map(|()| Default::default()));
        let addresses = ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "[fd00::1]:80", "10.0.0.3:80"];
        for (slot, address) in (0..).zip(addresses) {
            pool.get_mut(Slot(slot)).unwrap().address = address.into();
        }
        let mut headers = HeaderValues::default();
        headers.set([value.map(str::as_bytes)]);
        let request = RequestView {
            headers: &headers,
            ..RequestView::default()
        };
        let cycle = Cycle::new(&pool, request);
        let mut candidates: Vec<Slot> = (0..5).map(Slot).collect();
        HeaderBasedTestingFilter(HeaderId(0)).filter(&cycle, &mut candidates);
        candidates.iter().map(|slot| slot.0).collect()
    }

    #[test]
    fn endpoints_are_chosen_by_ip_address_or_by_address_with_port() {
        for (value, expected) in [
            ("10.0.0.2", [2].as_slice()),
            ("10.0.0.1:80", &[0]),
            // One of each IP address, which comes last.
            ("10.0.0.1", &[1]),
            ("10.0.0.1:80,10.0.0.1:81", &[0]),
            (" 10.0.0.3 ,, [fd00::1]:80", &[3, 4]),
            ("fd00::1", &[3]),
            ("[fd00::1]", &[3]),
            ("10.0.0.2:81", &[]),
            ("pod, 10.0.0.9", &[]),
            (" ", &[]),
        ] {
            assert_eq!(kept(Some(value)), expected, "{value}");
        }
        assert_eq!(kept(None), [0; 0]);
        let long = "10.0.0.9,".repeat(60) + "10.0.0.2";
        assert_eq!(kept(Some(&long)), [0; 0], "the end of a long value is not read");
        let many = |others: usize| ",".repeat(others) + "10.0.0.2";
        assert_eq!(kept(Some(&many(15))), [2]);
        assert_eq!(kept(Some(&many(16))), [0; 0], "the end of a long list is not read");
    }
}
