//! The server as its owner sees it: bind, ask for the address, run until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use crate::app::App;
use crate::assets::{Assets, Page};
use crate::config::ServerConfig;
use crate::connections;
use crate::gate::Gate;
use crate::origin::Origins;
use crate::routes;
use crate::seam::Engine;

/// A bound server that does not accept yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
}

/// Why a server cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, not ours, or not allowed.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// An entry of `allowed_origins` is no origin.
    #[error("`{given}` in `allowed_origins` is not an origin; write `scheme://host[:port]` without a path")]
    Origin {
        /// The entry.
        given: String,
    },
}

impl Server {
    /// Binds the address; connections queue from here on.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn bind(config: ServerConfig, engine: Engine, assets: Assets) -> Result<Self, ServeError> {
        let wrong_bind = |source| ServeError::Bind { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(wrong_bind)?;
        let address = listener.local_addr().map_err(wrong_bind)?;
        let origins = Origins::new(address.ip().is_loopback(), &config.allowed_origins);
        let origins = origins.map_err(|given| ServeError::Origin { given })?;
        let app = Arc::new(App::new(config, engine, Page::new(assets), origins));
        Ok(Self { listener, address, app })
    }

    /// Where it listens, with the port the system picked if port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then lets running generations end within `drain_timeout`, then closes.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let routes = TowerToHyperService::new(warp::service(routes::routes(&self.app)));
        let gate = Gate { app: self.app.clone(), routes };
        let drain = async {
            shutdown.await;
            tracing::info!("draining");
            self.app.engine.drain();
        };
        connections::run(self.listener, &self.app.config, &self.app.phase, gate, drain).await;
    }
}
