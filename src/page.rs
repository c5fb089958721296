//! The status page's root context: `root_id: status`, in a VM of its own.

use super::abi::{self, Action, Map, Status};
use super::configuration;
use super::headers::Pairs;
use super::host::Shared;
use status_page::Request;

/// The root that serves the page instead of picking.
pub const ROOT: &str = "status";

/// Serves a request of the page's listener.
pub fn serve() -> Action {
    let packed = abi::header_pairs(Map::Request).ok().flatten();
    let packed = packed.unwrap_or_default();
    let request = Request::read(Pairs::new(&packed));
    let now = abi::now_ns() / 1_000_000;
    let response = request.respond(&mut Shared, now, &configuration::build());
    let (status, headers) = (response.status, response.headers);
    match abi::respond(status, "epp_wasm_status", headers, &response.body) {
        Ok(()) => Action::Pause,
        Err(Status(status)) => {
            log::warn!("failed to send the status page (status {status})");
            Action::Continue
        }
    }
}
