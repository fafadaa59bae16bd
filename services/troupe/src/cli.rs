//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use troupe_node::config::Sources;
use troupe_node::units::Duration;

use crate::failure::EXIT_CODES;
use crate::services::{Service, Services};

/// PHP functions behind one fast front door: in one process, or apart.
#[derive(Debug, Parser)]
#[command(
    name = "troupe",
    version,
    about,
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = format!("\
Examples:
  troupe init hello && cd hello && troupe run
  troupe run --set gateway.listen=127.0.0.1:8000
  troupe run --config /etc/troupe/troupe.toml --service gateway
  troupe check

{EXIT_CODES}"))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve, in the foreground, until SIGTERM or Ctrl-C.
    #[command(after_help = "\
Examples:
  troupe run
  troupe run --config troupe.toml --set php.default.processes.max=32
  troupe run --service gateway,balancer
  TROUPE_GATEWAY__LISTEN=0.0.0.0:80 troupe run

Prints one line to stdout once everything serves: ready http://127.0.0.1:8080 ...")]
    Run(RunArgs),
    /// Check the configuration, that the ports are free, PHP, and the machine's limits.
    #[command(after_help = "\
Examples:
  troupe check
  troupe check --config troupe.yaml --service php-pool
  troupe check --json

Ends with 78 when the configuration is wrong, 69 when PHP is missing, 75 when a port is busy. A limit of the
machine that is too low is a warning, with the command that sets it.")]
    Check(CheckArgs),
    /// Write a configuration and a first function into a directory.
    #[command(after_help = "\
Examples:
  troupe init .
  troupe init hello && cd hello && troupe run

Nothing that exists is overwritten.")]
    Init(InitArgs),
    /// Show the configuration, or describe it.
    #[command(
        subcommand,
        after_help = "\
Examples:
  troupe config show --origin
  troupe config show --json --set gateway.max_body=1GiB
  troupe config schema > troupe.schema.json"
    )]
    Config(ConfigCommand),
    /// Ask a running Troupe whether it is ready: exit code 0, else 69.
    #[command(after_help = "\
Examples:
  troupe health
  troupe health --admin http://127.0.0.1:9092
  troupe health --config /etc/troupe/troupe.toml --service balancer")]
    Health(AskArgs),
    /// Show what a running Troupe is, does, and lacks.
    #[command(after_help = "\
Examples:
  troupe status
  troupe status --json
  troupe status --admin http://10.0.0.5:9091 --token-file admin.token")]
    Status(AskArgs),
    /// Show the workers in score order, with what makes up their scores.
    #[command(after_help = "\
Examples:
  troupe workers
  troupe workers -w
  troupe workers --service balancer --json")]
    Workers(WorkersArgs),
    /// Watch a running Troupe in the terminal: requests, latency, errors, resources, workers.
    #[command(after_help = "\
Examples:
  troupe top
  troupe top --interval 5s --admin http://10.0.0.5:9090 --token-file admin.token
  troupe top --csv --interval 5s > load.csv

Ctrl-C ends it. Where stdout is no terminal it prints once.")]
    Top(TopArgs),
    /// Take answers out of the cache of a running gateway.
    #[command(after_help = "\
Examples:
  troupe purge http://app.example/news/today
  troupe purge --group news
  troupe purge --prefix http://app.example/news/ --soft
  troupe purge --all --admin http://10.0.0.5:9090 --token-file admin.token

Each gateway has a cache of its own: purge each.")]
    Purge(PurgeArgs),
    /// Show the slowest requests of the last quarter of an hour, and where their time went.
    #[command(after_help = "\
Examples:
  troupe slow
  troupe slow -n 100 --json
  troupe slow --admin http://10.0.0.5:9090 --token-file admin.token")]
    Slow(SlowArgs),
    /// Let no new call to a worker, and wait for those that it has.
    #[command(after_help = "\
Examples:
  troupe drain default/php-pool@17
  troupe drain default/php-pool@17 --wait 0s
  troupe drain default/local --force

Each balancer decides for itself: ask every one, or the php-pool, which tells all of them.
Ends with 75 when calls are still with it after --wait.")]
    Drain(DrainArgs),
    /// Let calls to a worker again.
    #[command(after_help = "\
Examples:
  troupe undrain default/php-pool@17
  troupe undrain default/php-pool@17 --admin http://10.0.0.5:9091")]
    Undrain(WorkerArgs),
    /// Replace a worker's PHP processes one after another, without a failed request.
    #[command(after_help = "\
Examples:
  troupe restart default/local
  troupe restart default/php-pool@17 --service balancer

The code stays as it was loaded; `troupe reload` loads it anew.")]
    Restart(WorkerArgs),
    /// Read the configuration anew and load the code of PHP pools anew, without a failed request. What is broken leaves the old serving.
    #[command(after_help = "\
Examples:
  troupe reload
  troupe reload default
  troupe reload --service balancer

Done when every new call goes to the new code; says which keys take a restart. Ends with 78 when the new configuration
is broken, with 1 when the new code is; it says where.")]
    Reload(ReloadArgs),
    /// Explain what would be done with a request: route, limits, pool, worker. Nothing is sent.
    #[command(after_help = "\
Examples:
  troupe explain GET /api/hello
  troupe explain POST https://app.example/cart?x=1
  troupe explain GET /api/hello --host app.example --offline")]
    Explain(ExplainArgs),
    /// Print the completion script of a shell.
    #[command(after_help = "\
Examples:
  troupe completion bash > /etc/bash_completion.d/troupe
  troupe completion zsh > ~/.zfunc/_troupe
  troupe completion fish > ~/.config/fish/completions/troupe.fish")]
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration: TOML, or YAML or JSON by extension [default: troupe.toml, if there is one]
    #[arg(long, short, value_name = "FILE", env = "TROUPE_CONFIG")]
    config: Option<PathBuf>,
    /// Set one key, over file and environment; a TOML value, or a bare word. May be given again.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Which services are meant.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServiceArgs {
    /// Only these services, separated by commas [default: all, in this process]
    #[arg(long, value_name = "NAME,...", value_enum, value_delimiter = ',')]
    service: Vec<Service>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) services: ServiceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) services: ServiceArgs,
    /// Print the results as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The directory; made if it is not there.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the configuration that holds, defaults included.
    Show(ShowArgs),
    /// Describe every key: as JSON Schema, for editors.
    Schema(SchemaArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Say where each value comes from.
    #[arg(long)]
    pub(crate) origin: bool,
    /// Print it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// As a page of Markdown instead.
    #[arg(long, conflicts_with = "toml")]
    pub(crate) markdown: bool,
    /// As a TOML file with every key commented out instead.
    #[arg(long)]
    pub(crate) toml: bool,
    /// As JSON, which is what it is without options.
    #[arg(long, conflicts_with_all = ["markdown", "toml"])]
    pub(crate) json: bool,
}

/// Which running Troupe is asked, and how it is shown.
#[derive(Clone, Debug, Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) services: ServiceArgs,
    /// The admin listener to ask [default: the configuration's]
    #[arg(long, value_name = "URL")]
    pub(crate) admin: Option<String>,
    /// A file with the admin listener's token [default: the configuration's]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct PurgeArgs {
    /// One URL with its scheme and host: all its variants.
    #[arg(group = "what")]
    pub(crate) url: Option<String>,
    /// Every URL that begins like this one.
    #[arg(long, value_name = "URL", group = "what")]
    pub(crate) prefix: Option<String>,
    /// Every URL of a host.
    #[arg(long, value_name = "NAME", group = "what")]
    pub(crate) host: Option<String>,
    /// Every answer of a group.
    #[arg(long, value_name = "NAME", group = "what")]
    pub(crate) group: Option<String>,
    /// Everything.
    #[arg(long, group = "what")]
    pub(crate) all: bool,
    /// Make it stale instead of removing it: it is validated before it is given again.
    #[arg(long)]
    pub(crate) soft: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WorkersArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// Look again every two seconds, until Ctrl-C.
    #[arg(long, short)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// How often to look.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub(crate) interval: Duration,
    /// Print a line of comma-separated values for each look.
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
    /// Look this often, then end [default: until Ctrl-C]
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(crate) count: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct SlowArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// How many.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    pub(crate) most: u32,
    /// Show each with its trace's id, and its stages within each other: when each began and how long it took.
    #[arg(long)]
    pub(crate) spans: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// The worker, as `troupe workers` names it.
    pub(crate) worker: String,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The worker, as `troupe workers` names it.
    pub(crate) worker: String,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// How long to wait for the calls that it has; "0s": not at all.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub(crate) wait: Duration,
    /// Also when no other worker of its pool takes calls.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Only the code of this PHP pool [default: the configuration, and the code of all]
    pub(crate) pool: Option<String>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The method: GET, POST, ...
    pub(crate) method: String,
    /// A URL, or a path.
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// The host that the request names, whatever the URL says.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Ask nobody: explain by the configuration alone.
    #[arg(long, conflicts_with_all = ["admin", "token_file"])]
    pub(crate) offline: bool,
}

impl ConfigArgs {
    /// What is to be loaded.
    pub(crate) fn into_sources(self) -> Sources {
        Sources::of_process(self.config, self.set)
    }
}

impl ServiceArgs {
    /// The services that are meant.
    pub(crate) fn services(&self) -> Services {
        Services::named(&self.service)
    }
}
