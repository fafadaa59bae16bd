//! How PHP is started: which binary, as whom, with which settings.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::Pid;
use serde_json::json;
use tokio::process::{Child, Command};

use crate::config::{IniValue, Isolation, PhpPoolConfig};
use crate::error::StartError;
use crate::owner;
use crate::rundir::{DEFAULTS_INI, RunDir};
use crate::spool::UploadLimits;

/// Environment variables that PHP inherits; everything else is the operator's, who may have secrets in it.
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// The end of the kernel's scale: nice(1).
const LOWEST_PRIORITY: i32 = 19;

/// What a pool's processes are started with.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) pool: String,
    /// Absolute, and as configured: each boot looks anew where a symbolic link in it leads.
    root: PathBuf,
    pub(crate) isolation: Isolation,
    /// Whether a zygote forks the processes; each is exec'ed otherwise.
    pub(crate) forks: bool,
    /// The user and group PHP runs as, when they are not this process's own.
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) development: bool,
    memory_soft: u64,
    binary: String,
    nice: i32,
    ini: Vec<(String, String)>,
    env: BTreeMap<String, String>,
    /// A program that makes the kernel end a process that is started together with this one.
    tether: Option<PathBuf>,
}

impl Launch {
    /// Checks what can be checked before anything runs.
    pub(crate) fn new(pool: &str, config: &PhpPoolConfig, development: bool) -> Result<Self, StartError> {
        let no_root = |error| StartError::Root { pool: pool.to_owned(), root: config.root.clone(), error };
        config.root.canonicalize().map_err(no_root)?;
        let root = std::path::absolute(&config.root).map_err(no_root)?;
        let ini = settings(config);
        let php = Php::ask(pool, &config.binary, &ini)?;
        if !php.version.starts_with("8.2.") {
            tracing::info!(pool, version = %php.version, "this PHP is not 8.2, the version Troupe is tested with");
        }
        let no_user = |_| StartError::User { pool: pool.to_owned(), user: config.user.clone() };
        let owner = owner::look_up(&config.user).map_err(no_user)?;
        if owner.is_none() && rustix::process::geteuid().is_root() {
            tracing::warn!(pool, "php runs as root: set php.{pool}.user to a user without rights");
        }
        let forks = config.isolation != Isolation::Fresh && php.can_fork;
        if !php.can_fork && config.isolation != Isolation::Fresh {
            tracing::warn!(
                pool,
                "this PHP has no pcntl and posix, or ini.disable_functions takes some of them: processes are started one by one, not forked"
            );
        }
        let limit = config.memory_limit.bytes();
        Ok(Self {
            pool: pool.to_owned(),
            root,
            isolation: config.isolation,
            forks,
            owner,
            development,
            memory_soft: config.memory_soft.of(limit),
            binary: config.binary.clone(),
            nice: i32::from(config.nice),
            ini,
            env: config.env.clone(),
            tether: tether(),
        })
    }

    /// What the runtime reads at boot.
    pub(crate) fn boot_json(&self, run: &RunDir) -> Vec<u8> {
        let isolation = match self.isolation {
            Isolation::Shared => "shared",
            Isolation::Fork => "fork",
            Isolation::Fresh => "fresh",
        };
        json!({
            "pool": self.pool,
            "root": self.root,
            "run_dir": run.path(),
            "memory_soft": self.memory_soft,
            "development": self.development,
            "server": {},
            "isolation": isolation,
        })
        .to_string()
        .into_bytes()
    }

    /// Starts PHP, behind the front in the queue for the cores.
    pub(crate) fn spawn(&self, mut command: Command) -> io::Result<Child> {
        let child = command.spawn()?;
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
            // Relative to this process's own, as nice(1) does it. A child that is gone already is found out about elsewhere.
            let own = rustix::process::getpriority_process(None).unwrap_or(0);
            let _ = rustix::process::setpriority_process(Some(pid), (own + self.nice).min(LOWEST_PRIORITY));
        }
        Ok(child)
    }

    /// A command that runs the runtime's `script`. Its first script comes from standard input: PHP then leaves the constants
    /// STDIN, STDOUT and STDERR for the runtime to define.
    pub(crate) fn command(&self, run: &RunDir, script: &str) -> io::Result<Command> {
        let runtime = run.path().join("runtime");
        // A zygote that serves ends by its channel, and has to see to what it has forked; one that still loads code, which may
        // never end, does not look there.
        let signal = if self.forks { UNTIL_IT_SERVES } else { "KILL" };
        let mut command = match &self.tether {
            Some(tether) => {
                let mut command = Command::new(tether);
                command.args(["--pdeathsig", signal, "--"]).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        for (key, value) in &self.ini {
            command.arg("-d").arg(format!("{key}={value}"));
        }
        command.arg("--").arg(runtime.join(script)).arg(run.path().join("boot.json"));
        command.stdin(Stdio::from(File::open(runtime.join("start.php"))?));
        if let Err(error) = std::fs::metadata(&self.root) {
            return Err(io::Error::new(error.kind(), format!("{}: {error}", self.root.display())));
        }
        command.current_dir(&self.root).process_group(0).env_clear();
        command.envs(INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        command.envs(&self.env);
        if let Some((uid, gid)) = self.owner {
            command.uid(uid).gid(gid);
        }
        Ok(command)
    }
}

/// The limits of uploads that PHP would keep with these settings.
pub(crate) fn upload_limits(config: &PhpPoolConfig) -> UploadLimits {
    let text = |key: &str| match config.ini.get(key) {
        Some(IniValue::Text(text)) => Some(text.clone()),
        Some(IniValue::Number(number)) => Some(number.to_string()),
        Some(IniValue::Flag(_)) | None => None,
    };
    UploadLimits {
        files: text("max_file_uploads").and_then(|text| text.parse().ok()).unwrap_or(20),
        file_size: text("upload_max_filesize").map_or(2 << 20, |text| quantity(&text)),
    }
}

/// A number with PHP's suffixes: "2M" is 2 MiB.
fn quantity(text: &str) -> u64 {
    let digits: String = text.trim().chars().take_while(char::is_ascii_digit).collect();
    let number: u64 = digits.parse().unwrap_or(0);
    let shift = match text.trim().chars().next_back().map(|last| last.to_ascii_lowercase()) {
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        _ => 0,
    };
    number.saturating_mul(1 << shift)
}

/// The defaults, the pool's memory limit, then the pool's own settings. What comes later wins.
fn settings(config: &PhpPoolConfig) -> Vec<(String, String)> {
    let mut settings: Vec<(String, String)> = DEFAULTS_INI
        .lines()
        .filter(|line| !line.trim_start().starts_with(';'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let memory_limit = config.memory_limit.bytes().to_string();
    match settings.iter_mut().find(|(known, _)| known == "memory_limit") {
        Some((_, known)) => *known = memory_limit,
        None => settings.push(("memory_limit".to_owned(), memory_limit)),
    }
    for (key, value) in &config.ini {
        let value = match value {
            IniValue::Flag(flag) => u8::from(*flag).to_string(),
            IniValue::Number(number) => number.to_string(),
            IniValue::Text(text) => quoted(text),
        };
        match settings.iter_mut().find(|(known, _)| known == key) {
            // The runtime declares these functions itself and cannot start when they exist.
            Some((_, functions)) if key == "disable_functions" => {
                functions.push(',');
                functions.push_str(value.trim_matches('"'));
            }
            Some((_, known)) => *known = value,
            None => settings.push((key.clone(), value)),
        }
    }
    settings
}

/// The value as php.ini reads it back.
fn quoted(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./:-".contains(&byte)) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A signal that ends PHP until its code is loaded; the zygote then ignores it.
const UNTIL_IT_SERVES: &str = "USR2";

/// What a zygote calls to have processes.
const FORKING: &str = "pcntl_async_signals pcntl_fork pcntl_get_last_error pcntl_signal pcntl_strerror pcntl_waitpid \
    pcntl_wexitstatus pcntl_wifexited pcntl_wifsignaled pcntl_wtermsig posix_kill posix_setpgid stream_select";

/// What the PHP binary says of itself, with a pool's settings.
struct Php {
    version: String,
    can_fork: bool,
}

impl Php {
    fn ask(pool: &str, binary: &str, ini: &[(String, String)]) -> Result<Self, StartError> {
        let code = format!(
            "echo PHP_VERSION, ' ', (int) array_product(array_map('function_exists', explode(' ', '{FORKING}')));"
        );
        let failed = |why: String| StartError::Php { pool: pool.to_owned(), binary: binary.to_owned(), why };
        // No other setting: one that preloads would run the pool's code, here and as this user.
        let disabled = ini.iter().filter(|(key, _)| key == "disable_functions");
        let output = std::process::Command::new(binary)
            .args(disabled.flat_map(|(key, value)| ["-d".to_owned(), format!("{key}={value}")]))
            .args(["-d", "display_errors=0", "-r", &code])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Above it may stand what PHP had to say about its own configuration.
        match text.trim().lines().next_back().unwrap_or_default().rsplit_once(' ') {
            Some((version, can_fork)) if output.status.success() => {
                Ok(Self { version: version.to_owned(), can_fork: can_fork == "1" })
            }
            _ => Err(failed(format!("it answered {:?} ({})", text.trim(), output.status))),
        }
    }
}

/// The program, where there is one that can do it: util-linux has been able to since 2.33, BusyBox is not.
fn tether() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join("setpriv")).find(|program| program.is_file())?;
    let mut trial = std::process::Command::new(&found);
    let tried = trial.args(["--pdeathsig", "KILL", "--", "true"]).stdin(Stdio::null()).output();
    if tried.is_ok_and(|output| output.status.success()) {
        return Some(found);
    }
    tracing::warn!(program = %found.display(), "it knows no --pdeathsig: PHP that loads code outlives a php-pool that is killed");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pools_settings_win_but_cannot_take_the_runtimes_functions_away() {
        let mut config = PhpPoolConfig::default();
        config.ini.insert("disable_functions".to_owned(), IniValue::Text("exec,system".to_owned()));
        config.ini.insert("html_errors".to_owned(), IniValue::Flag(true));
        config.ini.insert("date.timezone".to_owned(), IniValue::Text("Europe/Berlin".to_owned()));
        config.ini.insert("sendmail_path".to_owned(), IniValue::Text("mail -t; x=\"y\"".to_owned()));
        let settings = settings(&config);
        let value = |key: &str| settings.iter().rfind(|(known, _)| known == key).map(|(_, value)| value.as_str());
        assert!(
            value("disable_functions").is_some_and(|list| list.contains("header,") && list.ends_with(",exec,system"))
        );
        assert_eq!(value("html_errors"), Some("1"));
        assert_eq!(value("date.timezone"), Some("Europe/Berlin"));
        assert_eq!(value("sendmail_path"), Some("\"mail -t; x=\\\"y\\\"\""));
        assert_eq!(value("memory_limit"), Some("134217728"));
        assert_eq!(value("opcache.enable_cli"), Some("1"));
    }

    #[test]
    fn a_pool_that_disables_what_a_zygote_calls_has_none() {
        let mut config = PhpPoolConfig { root: std::env::temp_dir(), ..PhpPoolConfig::default() };
        assert!(Launch::new("p", &config, false).unwrap().forks);
        // As Debian's own php.ini did for FPM.
        let disabled = "pcntl_alarm,pcntl_waitpid,pcntl_signal".to_owned();
        config.ini.insert("disable_functions".to_owned(), IniValue::Text(disabled));
        assert!(!Launch::new("p", &config, false).unwrap().forks);
    }

    #[test]
    fn quantities_are_read_as_php_reads_them() {
        assert_eq!((quantity("2M"), quantity("512"), quantity("1g"), quantity("x")), (2 << 20, 512, 1 << 30, 0));
    }
}
