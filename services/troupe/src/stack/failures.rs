//! What keeps a service from starting, as an exit code.

use troupe_gateway::error::BindError;
use troupe_php_pool::error::StartError;

use crate::failure::{Code, CommandError};

pub(super) fn bind(error: &BindError) -> CommandError {
    let code = match error {
        BindError::Busy(_) => Code::TryAgain,
        BindError::NoAddress | BindError::Routes(_) => Code::Configuration,
        BindError::Listen { .. } | BindError::Threads(_) => Code::Failed,
    };
    CommandError::new(code, error.to_string())
}

pub(super) fn php(error: &StartError) -> CommandError {
    let code = match error {
        StartError::Php { .. } => Code::Unavailable,
        StartError::Root { .. } | StartError::User { .. } | StartError::Processes { .. } => Code::Configuration,
        StartError::System { .. } => Code::Failed,
    };
    CommandError::new(code, error.to_string())
}
