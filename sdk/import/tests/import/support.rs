//! Folders, settings and a web server with faults, for the tests.

use std::error::Error as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use wick_import::{ImportError, Imported, MlflowSettings, Settings, Source};
use wick_package::{Package, Reason as _};

/// Largest file that tests take.
pub const MAX_SIZE: u64 = 64 << 20;

/// A folder of a test's own, and what an import into it says.
pub struct Bench {
    pub folder: tempfile::TempDir,
    pub settings: Settings,
    /// Most bytes that progress told of each file, in order.
    pub progress: Vec<(String, u64)>,
}

/// A request, as far as the tests look at it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub path: String,
    /// First byte that is asked for.
    pub from: Option<usize>,
    pub if_range: Option<String>,
    pub authorization: Option<String>,
}

/// What a server answers.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Ends the connection after so many bytes of the body.
    pub cut: Option<usize>,
}

/// A running server.
pub struct Server {
    pub addr: SocketAddr,
    requests: Receiver<Request>,
}

// === impl Bench ===

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            out: Some(folder.path().join("out")),
            name: None,
            version: None,
            model: None,
            sha256: None,
            reference: None,
            max_size: MAX_SIZE,
            follow_links: false,
            hard_link: false,
            dry_run: false,
            cacert: None,
            mlflow: MlflowSettings::default(),
        };
        Self { folder, settings, progress: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Write a file and the folders above it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn try_import(&mut self, source: &str) -> Result<Imported, ImportError> {
        let source = Source::parse(source)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let progress = &mut self.progress;
        let mut watch = |now: wick_import::Progress<'_>| match progress.last_mut() {
            Some((file, done)) if file == now.file => *done = now.done,
            _ => progress.push((now.file.to_owned(), now.done)),
        };
        runtime.block_on(wick_import::import(&source, &self.settings, &mut watch))
    }

    /// Import and open the package.
    pub fn import(&mut self, source: impl AsRef<Path>) -> (Imported, Package) {
        let source = source.as_ref().to_str().unwrap();
        let imported = self.try_import(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let package = Package::open(&imported.path).unwrap();
        assert_eq!(package.manifest().name, imported.name);
        assert_eq!(self.hidden(), Vec::<String>::new(), "nothing else is left");
        (imported, package)
    }

    /// Expect that it is refused with this code, and that nothing is left; message and help.
    pub fn refuse(&mut self, source: impl AsRef<Path>, code: &str) -> String {
        let source = source.as_ref().to_str().unwrap();
        let error = match self.try_import(source) {
            Err(error) => error,
            Ok(imported) => panic!("{source} was imported: {imported:?}"),
        };
        let (mut causes, mut source) = (String::new(), error.source());
        while let Some(cause) = source {
            causes.push_str(&format!("{cause}; "));
            source = cause.source();
        }
        let text = format!("{error}; {causes}{}", error.help().unwrap_or_default());
        assert_eq!(error.code(), code, "{text}");
        if !error.is_resumable() {
            assert_eq!(self.hidden(), Vec::<String>::new(), "nothing is left");
        }
        assert!(!self.settings.out.as_ref().unwrap().join("wick.toml").exists());
        text
    }

    /// Names of hidden files beside the package.
    fn hidden(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('.')).collect()
    }
}

/// The bytes of a package's model.
pub fn model(package: &Package) -> Vec<u8> {
    let path = &package.manifest().graphs[0].path;
    package.file(path).unwrap().read(MAX_SIZE).unwrap()
}

// === impl Server ===

impl Server {
    /// Answer requests by a script, each connection once.
    pub fn start(script: impl Fn(usize, &Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let Some(request) = Request::read(&stream) else { continue };
                let reply = script(number, &request);
                // The test may be over.
                drop(sender.send(request));
                drop(reply.write(&mut stream));
            }
        });
        Self { addr, requests }
    }

    /// Serve one file with an ETag, as web servers do.
    pub fn of(file: Vec<u8>) -> Self {
        Self::start(move |_, request| Reply::file(&file, "\"one\"", request))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.addr)
    }

    /// What was asked since the last look.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.try_iter().collect()
    }
}

// === impl Request ===

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut request = Self::default();
        let mut lines = BufReader::new(stream).lines();
        request.path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
        for line in lines {
            let line = line.ok()?;
            if line.is_empty() {
                return Some(request);
            }
            let (name, value) = line.split_once(": ")?;
            match name.to_ascii_lowercase().as_str() {
                "range" => {
                    let range = value.strip_prefix("bytes=")?;
                    request.from = range.split('-').next()?.parse().ok();
                }
                "if-range" => request.if_range = Some(value.to_owned()),
                "authorization" => request.authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        None
    }
}

// === impl Reply ===

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), cut: None }
    }

    /// What a server says that has `file` under a strong ETag.
    pub fn file(file: &[u8], etag: &str, request: &Request) -> Self {
        let etag_header = ("ETag", etag.to_owned());
        let same = request.if_range.as_deref().is_none_or(|asked| asked == etag);
        match request.from {
            Some(from) if same && from < file.len() => Self {
                status: 206,
                headers: vec![
                    etag_header,
                    ("Content-Range", format!("bytes {from}-{}/{}", file.len() - 1, file.len())),
                ],
                body: file[from..].to_vec(),
                cut: None,
            },
            _ => Self { status: 200, headers: vec![etag_header], body: file.to_vec(), cut: None },
        }
    }

    pub fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn write(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let length = self.body.len();
        write!(stream, "HTTP/1.1 {} X\r\nConnection: close\r\n", self.status)?;
        write!(stream, "Content-Length: {length}\r\n")?;
        for (name, value) in &self.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        stream.write_all(b"\r\n")?;
        stream.write_all(&self.body[..self.cut.unwrap_or(length).min(length)])
    }
}
