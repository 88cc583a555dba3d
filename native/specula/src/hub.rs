//! Models of the Hugging Face hub, by id. They are fetched once, into the hub's own cache, where other programs find them
//! too (`HF_HOME`). A download that breaks off goes on where it ended, here or at the next start, and what the hub states
//! a SHA-256 of must have it. Nothing here runs for models that are named by their path.

mod choice;
mod id;

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use choice::Choice;
use id::Id;

/// How long the hub may take to tell what a repository holds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tries of a file in a row that bring nothing, after which a download is given up until the next start.
const TRIES: usize = 4;

/// A model's files on this machine.
pub(crate) struct Found {
    /// A GGUF file or a folder.
    pub(crate) path: PathBuf,
    /// The id that it was named by, if it was.
    pub(crate) id: Option<String>,
}

/// Finds the model that an option names: at that path or, if nothing is there and it reads as an id, on the hub.
pub(crate) fn find(named: &Path) -> Result<Found> {
    let id = named.to_str().and_then(Id::parse).filter(|_| !named.exists());
    let Some(id) = id else { return Ok(Found { path: named.to_owned(), id: None }) };
    let path =
        fetched(&id).with_context(|| format!("`{id}` is no file or folder here, so it was looked for on the hub"))?;
    Ok(Found { path, id: Some(id.to_string()) })
}

fn fetched(id: &Id<'_>) -> Result<PathBuf> {
    let cache = Cache::from_env().model(id.repository.to_owned());
    if std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| !["", "0", "false"].contains(&&*value)) {
        return cached(id, &cache).context("HF_HUB_OFFLINE is set and the cache does not hold the model");
    }
    let mut builder = ApiBuilder::from_env();
    if let Some(token) = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()) {
        builder = builder.with_token(Some(token));
    }
    let api = builder.build()?;
    match listed(&api, id)? {
        Answer::Listed(info) => Repository::new(&api, id, info.sha).fetch(id, &info.siblings, &cache),
        Answer::Unreachable(why) => {
            let path = cached(id, &cache).with_context(|| {
                format!(
                    "the hub cannot be reached ({why}) and the cache does not hold the model; connect, or name a folder or \
                     file"
                )
            })?;
            eprintln!("the hub cannot be reached ({why}): `{id}` is as it was when it was fetched");
            Ok(path)
        }
    }
}

/// What an earlier start fetched, all of it.
fn cached(id: &Id<'_>, cache: &CacheRepo) -> Option<PathBuf> {
    match id.file {
        Some(file) => cache.get(file),
        None => cache.get("config.json")?.parent().map(Path::to_owned),
    }
}

enum Answer {
    Listed(RepoInfo),
    Unreachable(String),
}

/// What a repository holds at its newest commit.
fn listed(api: &Api, id: &Id<'_>) -> Result<Answer> {
    let request = api.model(id.repository.to_owned()).info_request();
    let request = request.config().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
    let mut response = match request.call() {
        Ok(response) => response,
        Err(why) => return Ok(Answer::Unreachable(why.to_string())),
    };
    match response.status().as_u16() {
        200 => Ok(Answer::Listed(response.body_mut().read_json().context("the hub's list of files cannot be read")?)),
        // The hub does not tell strangers what there is.
        401 | 403 | 404 => bail!(
            "the hub has no model `{}` for you ({}); check the name, and set HF_TOKEN if it needs leave",
            id.repository,
            response.status()
        ),
        _ => Ok(Answer::Unreachable(response.status().to_string())),
    }
}

/// A repository at one commit.
struct Repository<'a> {
    api: &'a Api,
    files: ApiRepo,
    cache: CacheRepo,
    commit: String,
}

impl<'a> Repository<'a> {
    fn new(api: &'a Api, id: &Id<'_>, commit: String) -> Self {
        // By commit, so that all files are of one.
        let repo = Repo::with_revision(id.repository.to_owned(), RepoType::Model, commit.clone());
        Self { api, files: api.repo(repo.clone()), cache: Cache::from_env().repo(repo), commit }
    }

    /// Fetches what is not there yet of the model; `newest` is where the cache notes the commit that it holds whole.
    fn fetch(&self, id: &Id<'_>, listed: &[hf_hub::api::Siblings], newest: &CacheRepo) -> Result<PathBuf> {
        let names: Vec<&str> = listed.iter().map(|file| &*file.rfilename).collect();
        let path = match Choice::of(id, &names)? {
            Choice::File(file) => self.file(file)?,
            Choice::Folder { index, files } => {
                for file in files {
                    self.file(file)?;
                }
                if let Some(index) = index {
                    for file in choice::shards(&fs::read(self.file(index)?)?, &names)? {
                        self.file(&file)?;
                    }
                }
                self.cache.pointer_path(&self.commit)
            }
        };
        newest.create_ref(&self.commit)?;
        Ok(path)
    }

    /// A file's path in the cache, after it was fetched if it was not there.
    fn file(&self, name: &str) -> Result<PathBuf> {
        let path = self.cache.pointer_path(&self.commit).join(name);
        if path.exists() {
            return Ok(path);
        }
        let metadata = self.api.metadata(&self.files.url(name)).with_context(|| {
            format!(
                "`{name}` cannot be had; a model with terms of use needs HF_TOKEN of an account that agreed to them"
            )
        })?;
        let blob = self.cache.blob_path(metadata.etag());
        if blob.exists() {
            // An earlier commit's file is this one's too.
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::hard_link(&blob, &path).with_context(|| path.display().to_string())?;
            return Ok(path);
        }
        if !io::stderr().is_terminal() {
            eprintln!("fetching {name} ({} bytes)", metadata.size());
        }
        self.download(name, &blob.with_extension("part"), metadata.size() as u64)?;
        if let Err(why) = verify(&blob, metadata.size() as u64, metadata.etag()) {
            fs::remove_file(&path)?;
            fs::remove_file(&blob)?;
            bail!("`{name}` was fetched and thrown away: {why}; try again");
        }
        Ok(path)
    }

    /// Downloads a file of `size` bytes by way of `part`, which is gone on with if there is one.
    fn download(&self, name: &str, part: &Path, size: u64) -> Result<()> {
        let fetched = || fs::metadata(part).map_or(0, |part| part.len());
        let mut tries = 0;
        loop {
            let before = fetched();
            if before >= size && size > 0 {
                // Nothing is left to ask for, which a server would refuse: the last byte is fetched again.
                OpenOptions::new().write(true).open(part)?.set_len(size - 1)?;
            }
            match self.files.download_with_progress(name, ProgressBar::new(0)) {
                Ok(_) => return Ok(()),
                Err(why @ (ApiError::IoError(_) | ApiError::RequestError(_))) => {
                    tries = if fetched() > before { 0 } else { tries + 1 };
                    if tries >= TRIES {
                        let so_far = fetched();
                        return Err(why).with_context(|| {
                            format!(
                                "`{name}` broke off after {so_far} of {size} bytes; the next start goes on from there"
                            )
                        });
                    }
                    std::thread::sleep(Duration::from_millis(250 << tries));
                }
                Err(why) => return Err(why).with_context(|| format!("`{name}`")),
            }
        }
    }
}

/// Compares a file with what the hub says of it. Large files' etag is their SHA-256; small ones' is git's own hash.
fn verify(file: &Path, size: u64, etag: &str) -> Result<()> {
    let mut file = File::open(file)?;
    let found = file.metadata()?.len();
    if found != size {
        bail!("it has {found} bytes and should have {size}");
    }
    if etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        let mut hash = Sha256::new();
        let mut piece = vec![0; 1 << 20];
        loop {
            match file.read(&mut piece)? {
                0 => break,
                len => hash.update(&piece[..len]),
            }
        }
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if !found.eq_ignore_ascii_case(etag) {
            bail!("its SHA-256 is {found} and should be {etag}");
        }
    }
    Ok(())
}
