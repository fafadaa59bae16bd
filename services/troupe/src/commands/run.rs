//! `troupe run`.

use troupe_node::config::Loaded;

use crate::config::Config;
use crate::failure::CommandError;
use crate::services::Services;

/// Runs `services` in this process until they have drained.
///
/// # Errors
///
/// What kept them from starting or ended them, with the exit code for it.
pub(crate) fn run(_config: Loaded<Config>, services: Services) -> Result<(), CommandError> {
    let names: Vec<&str> = services.iter().map(crate::services::Service::name).collect();
    Err(CommandError::failed(format!("{} cannot be started by this build", names.join(", "))))
}
