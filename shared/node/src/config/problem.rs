//! What is wrong with a configuration, and how it is shown: all problems at once, each with its place.

use std::fmt;
use std::path::{Path, PathBuf};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};
use serde::Serialize;

use super::tree::Place;

/// Problems that are told one by one. Each costs a walk through the file to its line, and nobody reads more before mending some.
const MOST_TOLD: usize = 100;

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The key, as TOML writes it: `php.default.timeout`, `route[0].path`.
    pub(super) key: String,
    pub(super) message: String,
    pub(super) help: Option<Box<str>>,
    /// What should stand there instead.
    pub(super) suggestion: Option<Box<str>>,
    /// Where it stands; none until the key has been looked up.
    pub(super) place: Option<Box<Place>>,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug)]
pub struct Problems {
    pub(super) list: Vec<Problem>,
    /// The file as it was read, for the lines that are shown.
    pub(super) file: Option<(PathBuf, String)>,
}

/// A problem as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProblemRecord {
    /// The key.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// Where it stands: `troupe.toml:3:1`, an environment variable or a flag.
    pub place: String,
    /// What should stand there instead, where that can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

// === impl Problem ===

impl Problem {
    /// A problem with the value of `key`.
    #[must_use]
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), help: None, suggestion: None, place: None }
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into().into_boxed_str());
        self
    }

    /// Says what was meant, if that can be told.
    #[must_use]
    pub fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Self {
        self.suggestion = suggestion.map(|text| text.into().into_boxed_str());
        self
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.place = Some(Box::new(place));
        self
    }
}

// === impl Problems ===

impl Problems {
    /// How many there are; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is no report of no problems")]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// How many of them are not told one by one.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.list.len() - self.told().len()
    }

    /// The problems as data, in the order of the file; no more than the first 100.
    #[must_use]
    pub fn records(&self) -> Vec<ProblemRecord> {
        let record = |problem: &Problem| ProblemRecord {
            key: problem.key.clone(),
            message: problem.message.clone(),
            place: self.place_of(problem),
            suggestion: problem.suggestion.as_deref().map(str::to_owned),
            help: problem.help.as_deref().map(str::to_owned),
        };
        self.told().iter().map(record).collect()
    }

    /// The report for people: each problem with the lines it stands in, then their number.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_wrap_lines(false).with_links(false);
        let mut report = String::new();
        for problem in self.told() {
            let shown = Shown::new(problem, self.file.as_ref());
            if handler.render_report(&mut report, &shown).is_err() {
                report.push_str(&shown.message);
            }
            report.push('\n');
        }
        report.push_str(&self.and_more());
        let number = match self.list.len() {
            1 => "1 problem".to_owned(),
            many => format!("{many} problems"),
        };
        report.push_str(&format!(
            "{number} in the configuration; `troupe config schema --markdown` describes every key\n"
        ));
        report
    }

    fn told(&self) -> &[Problem] {
        self.list.get(..MOST_TOLD).unwrap_or(&self.list)
    }

    /// A line about those that are left out; nothing when none is.
    fn and_more(&self) -> String {
        match self.left_out() {
            0 => String::new(),
            more => format!("and {more} more\n"),
        }
    }

    fn place_of(&self, problem: &Problem) -> String {
        let file = self.file.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
        describe(problem.place.as_deref().unwrap_or(&Place::Default), file)
    }
}

impl fmt::Display for Problems {
    /// One line per problem, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.told().iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}: {}", self.place_of(problem), problem.message)?;
            if let Some(suggestion) = &problem.suggestion {
                write!(f, "; did you mean `{suggestion}`?")?;
            }
        }
        match self.and_more().trim_end() {
            "" => Ok(()),
            more => write!(f, "\n{more}"),
        }
    }
}

impl std::error::Error for Problems {}

/// A place in words: `troupe.toml:3:1`, `environment variable TROUPE_…`, `--set …`, `default`.
pub(super) fn describe(place: &Place, file: Option<(&Path, &str)>) -> String {
    match (place, file) {
        (Place::File(Some(span)), Some((path, text))) => {
            let before = text.get(..span.start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            format!("{}:{line}:{column}", path.display())
        }
        (Place::File(_), Some((path, _))) => path.display().to_string(),
        (Place::File(_), None) => "the configuration file".to_owned(),
        (Place::Environment(variable), _) => format!("environment variable {variable}"),
        (Place::Set(argument), _) => format!("--set {argument}"),
        (Place::Default, _) => "default".to_owned(),
    }
}

/// A problem as `miette` shows it.
#[derive(Debug)]
struct Shown {
    message: String,
    help: Option<String>,
    source: Option<NamedSource<String>>,
    label: Option<LabeledSpan>,
}

impl Shown {
    fn new(problem: &Problem, file: Option<&(PathBuf, String)>) -> Self {
        let meant = problem.suggestion.as_ref().map(|suggestion| format!("did you mean `{suggestion}`?"));
        let place = problem.place.as_deref().unwrap_or(&Place::Default);
        if let (Place::File(Some(span)), Some((path, text))) = (place, file) {
            let label = meant.unwrap_or_else(|| "here".to_owned());
            return Self {
                message: problem.message.clone(),
                help: problem.help.as_deref().map(str::to_owned),
                source: Some(NamedSource::new(path.display().to_string(), text.clone())),
                label: Some(LabeledSpan::new(Some(label), span.start, span.len())),
            };
        }
        let whence = match place {
            Place::Default => String::new(),
            Place::File(_) => file.map(|(path, _)| format!(" (in {})", path.display())).unwrap_or_default(),
            Place::Environment(variable) => format!(" (from the environment variable `{variable}`)"),
            Place::Set(argument) => format!(" (from `--set {argument}`)"),
        };
        let help: Vec<String> = meant.into_iter().chain(problem.help.as_deref().map(str::to_owned)).collect();
        Self {
            message: format!("{}{whence}", problem.message),
            help: (!help.is_empty()).then(|| help.join("; ")),
            source: None,
            label: None,
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown {}

impl Diagnostic for Shown {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.label.clone().map(|label| Box::new(std::iter::once(label)) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}

/// Puts problems in the order people meet their places: the file from top to bottom, then variables, then flags.
pub(super) fn sort(problems: &mut [Problem]) {
    problems.sort_by_key(|problem| match problem.place.as_deref() {
        None | Some(Place::Default) => (0, 0, String::new()),
        Some(Place::File(span)) => (1, span.as_ref().map_or(0, |span| span.start), String::new()),
        Some(Place::Environment(variable)) => (2, 0, variable.clone()),
        Some(Place::Set(argument)) => (3, 0, argument.clone()),
    });
}
