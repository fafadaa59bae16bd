//! `troupe check`: would `troupe run` serve, and well? The configuration, then the ports, PHP, Redis, peers, and the machine.

mod machine;
mod peers;
mod php;
mod ports;
mod redis;

use serde::Serialize;

use crate::cli::CheckArgs;
use crate::config;
use crate::failure::{Code, CommandError};
use crate::output;
use crate::services::Service;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    /// It would serve, but not as well as it could.
    Warn,
    Fail,
}

/// One check and its result.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    outcome: Outcome,
    said: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    /// What is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    is: Option<String>,
    /// What should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    should_be: Option<String>,
    /// What sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// How the command ends for this, when it failed.
    #[serde(skip)]
    code: Option<Code>,
}

pub(super) fn run(args: CheckArgs) -> Result<(), CommandError> {
    let services = args.services.services();
    let loaded = config::load(&args.config.into_sources()).and_then(|loaded| config::ready(loaded, services));
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) if args.json => {
            let (told, more) = (problems.records(), problems.left_out());
            output::json(&serde_json::json!({ "ok": false, "problems": told, "more": more }))?;
            return Err(CommandError::new(Code::Configuration, ""));
        }
        Err(problems) => return Err(problems.into()),
    };
    let read = loaded.file.as_ref().map_or_else(|| "no file, defaults".to_owned(), |path| path.display().to_string());
    let mut findings = vec![Finding::ok("configuration", read)];
    findings.extend(ports::check(&loaded, services));
    if services.contains(Service::PhpPool) {
        findings.extend(php::check(&loaded.config)?);
    }
    findings.extend(redis::check(&loaded.config, services)?);
    findings.extend(peers::check(&loaded.config, services)?);
    findings.extend(machine::check(&loaded.config, services));
    let code = findings.iter().filter_map(|finding| finding.code).max_by_key(|code| rank(*code));
    if args.json {
        output::json(&serde_json::json!({ "ok": code.is_none(), "checks": findings }))?;
    } else {
        output::data(&table(&findings))?;
    }
    code.map_or(Ok(()), |code| Err(CommandError::new(code, "")))
}

impl Finding {
    fn ok(check: &'static str, said: impl Into<String>) -> Self {
        let said = said.into();
        Self { check, outcome: Outcome::Ok, said, help: None, is: None, should_be: None, command: None, code: None }
    }

    fn warn(check: &'static str, said: impl Into<String>, help: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warn, help: Some(help.into()), ..Self::ok(check, said) }
    }

    fn fail(check: &'static str, code: Code, said: impl Into<String>, help: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, help: Some(help.into()), code: Some(code), ..Self::ok(check, said) }
    }

    /// Whether it is good, what it is and what it should be; why that matters, and what sets it.
    fn compared(check: &'static str, state: (bool, String, String), why: &str, command: String) -> Self {
        let (good, is, should_be) = state;
        let said = if good { is.clone() } else { format!("{is}; should be {should_be}: {why}") };
        let finding = if good { Self::ok(check, said) } else { Self::warn(check, said, command.clone()) };
        Self { is: Some(is), should_be: Some(should_be), command: (!good).then_some(command), ..finding }
    }
}

/// Which failure is told when there are several: what takes most to mend.
fn rank(code: Code) -> u8 {
    match code {
        Code::Configuration => 3,
        Code::Unavailable => 2,
        Code::TryAgain => 1,
        Code::Failed | Code::Usage => 0,
    }
}

fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let outcome = match finding.outcome {
            Outcome::Ok => "ok  ",
            Outcome::Warn => "warn",
            Outcome::Fail => "FAIL",
        };
        text.push_str(&format!("{outcome}  {:<14} {}\n", finding.check, finding.said));
        if let Some(help) = &finding.help {
            text.push_str(&format!("{:21}{help}\n", ""));
        }
    }
    text
}
