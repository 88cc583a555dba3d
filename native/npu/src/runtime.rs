//! ONNX Runtime, a library that is found when it is wanted. Without it everything here is an error with the remedy in it.

use std::ffi::CStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::memory::DeviceType;
use ort::session::Session;
use ort::session::builder::SessionBuilder;

use crate::kept;
use crate::provider::Provider;
use crate::shared::Shared;
use crate::variant::Variant;

/// What the library is called if nobody says where it is; the system's loader finds it then, or does not.
const LIBRARY: &str = if cfg!(windows) {
    "onnxruntime.dll"
} else if cfg!(target_vendor = "apple") {
    "libonnxruntime.dylib"
} else {
    "libonnxruntime.so"
};

/// The loaded library. A process has one, until it ends.
pub struct Runtime {
    path: PathBuf,
    version: String,
    environment: Environment,
    /// Libraries of further providers.
    plugins: Mutex<Vec<PathBuf>>,
}

static LOADED: Mutex<Option<&'static Runtime>> = Mutex::new(None);

/// Ends the process at once if ONNX Runtime was loaded: providers' own destructors, which run when a process ends, meet
/// sessions that other threads have not given up yet, and some abort then.
pub fn leave(code: i32) {
    let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    #[cfg(unix)]
    if loaded {
        // What cannot be written now, nobody reads.
        let _ = std::io::stdout().flush();
        // SAFETY: it does not return, and whatever it leaves undone the system undoes.
        unsafe { libc::_exit(code) };
    }
    // Elsewhere there is nothing known to do.
    let _ = (loaded, code);
}

/// Where the libraries are.
#[derive(Debug, Clone, Default)]
pub struct Libraries {
    /// ONNX Runtime's; `None`: the system knows.
    pub runtime: Option<PathBuf>,
    /// That of a provider that ONNX Runtime does not bring itself.
    pub plugin: Option<PathBuf>,
}

/// How a graph is to be compiled.
pub(crate) struct Order<'a> {
    pub(crate) provider: &'a Provider,
    pub(crate) variant: Variant,
    /// The graph's file.
    pub(crate) graph: &'a Path,
    /// Weights in memory, of a provider that computes from there.
    pub(crate) shared: Option<&'a Shared>,
    /// The provider's own library, if it has one.
    pub(crate) plugin: Option<&'a Path>,
    /// A folder for what providers keep of their work.
    pub(crate) cache: &'a Path,
}

impl Runtime {
    /// Loads it, or gives what is loaded already.
    ///
    /// # Errors
    /// If it is not there, is too old, or another one is loaded.
    pub fn load(libraries: &Libraries) -> Result<&'static Self, String> {
        let wanted = beside_the_program(libraries.runtime.clone().unwrap_or_else(|| LIBRARY.into()));
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = match *loaded {
            Some(runtime) if runtime.path == wanted => runtime,
            Some(other) => {
                return Err(format!("{} is loaded, and a process has one ONNX Runtime", other.path.display()));
            }
            None => {
                let runtime: &'static Self = Box::leak(Box::new(Self::open(wanted)?));
                *loaded = Some(runtime);
                runtime
            }
        };
        Ok(runtime)
    }

    fn open(path: PathBuf) -> Result<Self, String> {
        let remedy =
            "pip install onnxruntime, and let ORT_DYLIB_PATH or --onnxruntime name its capi/libonnxruntime.so.*";
        let builder = ort::init_from(&path).map_err(|error| format!("ONNX Runtime is not here: {error}; {remedy}"))?;
        let environment = builder.with_name("specula").build().map_err(text)?;
        // What goes wrong comes back as an error; all else is of no use to anybody here.
        environment.set_log_level(LogLevel::Fatal);
        let version = version(&path).ok_or_else(|| format!("{} tells no version", path.display()))?;
        Ok(Self { path, version, environment, plugins: Mutex::default() })
    }

    /// Its version and where it is.
    pub fn version(&self) -> String {
        format!("ONNX Runtime {} ({})", self.version, self.path.display())
    }

    /// Whether the library brings a provider, or a plugin for it was registered.
    pub fn has(&self, provider: &Provider) -> bool {
        let brought = match provider {
            Provider::Cpu => return true,
            Provider::OpenVino { .. } => ep::OpenVINO::is_available(),
            // Always a library of its own.
            Provider::Qnn => Ok(false),
            Provider::CoreMl => ep::CoreML::is_available(),
            Provider::VitisAi => ep::Vitis::is_available(),
        };
        brought.unwrap_or(false) || self.devices_of(provider).next().is_some()
    }

    /// Devices that ONNX Runtime tells of: provider, vendor, kind.
    pub fn devices(&self) -> Vec<String> {
        let told = self.environment.devices().map(|device| {
            let hardware = device.hardware_device();
            let kind = match hardware.ty() {
                DeviceType::CPU => "CPU",
                DeviceType::GPU => "GPU",
                _ => "NPU",
            };
            format!("{} on {} {kind}", device.ep().unwrap_or("?"), hardware.vendor().unwrap_or("?"))
        });
        told.collect()
    }

    fn devices_of(&self, provider: &Provider) -> impl Iterator<Item = ort::device::Device<'_>> {
        let name = provider.full_name();
        self.environment.devices().filter(move |device| device.ep().is_ok_and(|ep| ep == name))
    }

    /// Registers a provider's own library, once.
    ///
    /// # Errors
    /// ONNX Runtime's.
    pub fn register(&self, provider: &Provider, plugin: &Path) -> Result<(), String> {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        if !plugins.iter().any(|known| known == plugin) {
            let registered = self.environment.register_ep_library(provider.full_name(), plugin);
            registered.map_err(|error| format!("{}: {error}", plugin.display()))?;
            plugins.push(plugin.to_owned());
        }
        Ok(())
    }

    /// Compiles a graph, all of it for the provider.
    ///
    /// # Errors
    /// ONNX Runtime's, among them that an operation would be left to the CPU.
    pub(crate) fn compile(&self, order: &Order<'_>) -> Result<Session, String> {
        let builder = Session::builder(&self.environment).map_err(text)?;
        let builder = builder.with_log_level(LogLevel::Fatal).map_err(text)?;
        // One thread, the caller's: the draft's cores are not to wait for each other.
        let builder = builder.with_intra_threads(1).map_err(text)?.with_inter_threads(1).map_err(text)?;
        let mut builder = match order.provider {
            // Without VNNI two products of 8 bits are summed in 16, which they can exceed.
            Provider::Cpu if order.variant == Variant::Dyn8 && !has_vnni() => {
                builder.with_precise_qmm().map_err(text)?
            }
            Provider::Cpu => builder,
            _ => builder.with_disable_cpu_fallback().map_err(text)?,
        };
        if let Some(shared) = order.shared {
            builder = shared.give(builder)?;
        }
        let cache = order.cache.to_string_lossy();
        let brought = match order.provider {
            Provider::Cpu => None,
            Provider::OpenVino { device } => {
                let ep = ep::OpenVINO::default().with_device_type(device).with_num_threads(1);
                Some(ep.with_cache_dir(&cache).build())
            }
            Provider::Qnn => return self.compile_kept(builder, order),
            Provider::CoreMl => {
                let ep = ep::CoreML::default().with_model_format(ep::coreml::ModelFormat::MLProgram);
                let ep = ep.with_static_input_shapes(true).with_model_cache_dir(&cache);
                Some(ep.with_compute_units(ep::coreml::ComputeUnits::CPUAndNeuralEngine).build())
            }
            Provider::VitisAi => {
                let key = order.graph.file_stem().unwrap_or_default().to_string_lossy();
                let ep = ep::Vitis::default().with_cache_dir(&cache).with_cache_key(key);
                Some(ep.with_arbitrary_config("enable_cache_file_io_in_mem", "0").build())
            }
        };
        if let Some(ep) = brought.map(ExecutionProviderDispatch::error_on_failure) {
            builder = builder.with_execution_providers([ep]).map_err(text)?;
        }
        builder.commit_from_file(order.graph).map_err(text)
    }

    /// The same for a provider of its own library, whose compiled graph is kept as another graph of one operation.
    fn compile_kept(&self, builder: SessionBuilder, order: &Order<'_>) -> Result<Session, String> {
        if let Some(plugin) = order.plugin {
            self.register(order.provider, plugin)?;
        }
        let devices: Vec<_> = self.devices_of(order.provider).collect();
        if devices.is_empty() {
            return Err(format!("no device of {}; {}", order.provider, order.provider.how_to_get()));
        }
        let builder = builder.with_devices(devices, Some(&qnn_options(order.plugin))).map_err(text);
        let kept = order.cache.join(order.graph.file_name().unwrap_or_default());
        if kept::is_whole(&kept) {
            return builder?.commit_from_file(&kept).map_err(text);
        }
        kept::keep(&kept, |draft| {
            let path = draft.to_string_lossy();
            let mut builder = builder?;
            for (key, value) in [("enable", "1"), ("embed_mode", "1"), ("file_path", &path)] {
                builder = builder.with_config_entry(format!("ep.context_{key}"), value).map_err(text)?;
            }
            builder.commit_from_file(order.graph).map_err(text)
        })
    }
}

/// A relative path counts from the program's folder if there is something, else from wherever the system looks.
fn beside_the_program(path: PathBuf) -> PathBuf {
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent).map(|folder| folder.join(&path));
    beside.filter(|beside| beside.exists()).unwrap_or(path)
}

/// The version that a library says it has, which `ort` reads but does not pass on. Loaded already, so this is no work.
fn version(path: &Path) -> Option<String> {
    type Base = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: `ort` has loaded the same file, so its beginnings have run; the function is what every ONNX Runtime exports
    // under this name, and its answers are constants of the library, which stays loaded.
    unsafe {
        let library = libloading::Library::new(path).ok()?;
        let base = library.get::<Base>(b"OrtGetApiBase").ok()?();
        let version = CStr::from_ptr(((*base).GetVersionString)());
        Some(version.to_string_lossy().into_owned())
    }
}

fn has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512vnni") || std::arch::is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    true
}

/// Options of Qualcomm's provider, whose back end lies beside its library.
fn qnn_options(plugin: Option<&Path>) -> Vec<(String, String)> {
    let backend = if cfg!(windows) { "QnnHtp.dll" } else { "libQnnHtp.so" };
    let backend = plugin.and_then(Path::parent).map_or_else(|| backend.into(), |folder| folder.join(backend));
    let mut options = vec![("backend_path", backend.to_string_lossy().into_owned())];
    if cfg!(target_arch = "x86_64") {
        // The emulator has to be told what it emulates: a Snapdragon X's HTP.
        options.extend([("htp_arch", "73".to_owned()), ("soc_model", "60".to_owned())]);
    } else {
        options.push(("htp_performance_mode", "burst".to_owned()));
    }
    options.into_iter().map(|(key, value)| (format!("{}.{key}", Provider::Qnn.full_name()), value)).collect()
}

pub(crate) fn text<R>(error: ort::Error<R>) -> String {
    error.to_string().trim().to_owned()
}

/// What goes wrong in a step.
pub(crate) fn failure<R>(error: ort::Error<R>) -> specula_decoding::ModelError {
    specula_decoding::ModelError(text(error))
}
