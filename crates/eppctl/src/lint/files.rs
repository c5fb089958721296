//! The documents of a run: from files, from folders, and from standard input.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::normal::is_picker_config;
use super::not_recognised;
use super::report::Finding;
use super::source::{documents, Document};
use crate::input::read_text;
use crate::output::Error;

/// The files of a run.
#[derive(Default)]
pub struct Files {
    /// What was given, with the files of folders in the folder's place.
    pub names: Vec<String>,
    /// Their documents.
    pub documents: Vec<Document>,
    /// Files of folders that lint does not read.
    pub left_out: Vec<LeftOut>,
    /// Files of folders that have an EndpointPickerConfig and cannot be read.
    pub unreadable: Vec<Finding>,
}

/// A file of a folder that lint does not read.
#[derive(Serialize)]
pub struct LeftOut {
    /// Its name.
    pub file: String,
    /// The reason.
    pub why: String,
}

impl Files {
    /// Reads files and folders.
    pub fn read(given: &[String]) -> Result<Self, Error> {
        let mut files = Self::default();
        for name in given {
            if name.contains("://") || name.starts_with("unix:") {
                return Err(Error::new(format!(
                    "{name}: expected a file or a folder; for a running Envoy use --envoy {name}"
                )));
            }
            match Path::new(name).is_dir() {
                true => files.add_folder(name)?,
                false => files.add(name, &read_text(name)?)?,
            }
        }
        Ok(files)
    }

    /// Adds the documents in a text. A text that is not for lint is an error.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), Error> {
        let documents = documents(name, text)?;
        if documents
            .iter()
            .any(|document| is_picker_config(&document.node))
        {
            return Err(Error::new(format!("{name}: {FOR_CHECK}")));
        }
        self.names.push(name.to_owned());
        self.documents.extend(documents);
        Ok(())
    }

    /// Adds the files in and below a folder.
    fn add_folder(&mut self, folder: &str) -> Result<(), Error> {
        let mut names = Vec::new();
        list(Path::new(folder), &mut names)?;
        if names.is_empty() {
            return Err(Error::new(format!(
                "{folder}: no .yaml, .yml or .json file in or below this folder"
            )));
        }
        for name in names {
            self.add_found(name);
        }
        Ok(())
    }

    /// Adds a file of a folder, where all kinds of files may be.
    fn add_found(&mut self, name: String) {
        let text = match read_text(&name) {
            Ok(text) => text,
            Err(error) => return self.leave_out(name, &error, ""),
        };
        match documents(&name, &text) {
            Err(error) => self.leave_out(name, &error, &text),
            Ok(documents) if documents.iter().any(|one| is_picker_config(&one.node)) => {
                let why = FOR_CHECK.to_owned();
                self.left_out.push(LeftOut { file: name, why });
            }
            // A document that mentions the picker's is for the rule that says so.
            Ok(documents)
                if !documents
                    .iter()
                    .any(|one| one.is_recognised() || one.is_workload())
                    && !is_mentioned(&text) =>
            {
                let why = "nothing that lint reads".to_owned();
                self.left_out.push(LeftOut { file: name, why });
            }
            Ok(documents) => {
                self.names.push(name);
                self.documents.extend(documents);
            }
        }
    }

    /// Leaves a file out that cannot be read, which is a finding if it has a picker's document.
    fn leave_out(&mut self, file: String, error: &Error, text: &str) {
        let error = error.to_string();
        let why = error
            .strip_prefix(&format!("{file}: "))
            .unwrap_or(&error)
            .to_owned();
        if !is_mentioned(text) {
            return self.left_out.push(LeftOut { file, why });
        }
        self.unreadable.push(Finding {
            file,
            line: None,
            path: String::new(),
            rule: not_recognised::RULE.name,
            found: format!("an EndpointPickerConfig in a file that cannot be read: {why}"),
            why: "nothing in this file was checked",
            fix: "correct the file; for a template, pass what it renders to (helm template … | eppctl lint -)"
                .to_owned(),
        });
    }
}

const FOR_CHECK: &str = "is an EndpointPickerConfig: use `eppctl check`; lint reads the configuration of Envoy and its \
                         control planes around it";

fn is_mentioned(text: &str) -> bool {
    text.contains("EndpointPickerConfig")
}

/// Lists the files in and below a folder, in the order of their names. Links to folders are not followed, so that a
/// loop of them ends, and hidden files are left out, as those that Kubernetes puts into the mounts of ConfigMaps.
fn list(folder: &Path, found: &mut Vec<String>) -> Result<(), Error> {
    let unreadable = |error| Error::new(format!("{}: {error}", folder.display()));
    let mut entries = fs::read_dir(folder)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(unreadable)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        if kind.is_dir() {
            list(&path, found)?;
        } else if matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file() {
            found.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}
