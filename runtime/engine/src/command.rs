//! A command: a `wasi:cli` component or a core module with `_start`, run to its end.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::Store;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::CommandPre;

use crate::error::InferError;
use crate::failure::failed;
use crate::model::{Inner, Model, within};
use crate::output::{Output, Streams};
use crate::program::Program;
use crate::state::{self, Limited, State};
use crate::witx::CoreState;

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// 0 is success.
    pub status: i32,
    /// What it printed, up to 1 MiB of each.
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Model {
    /// Run a command to its end and return its exit status. `args` follow the
    /// model's name, which is the program's. What it prints goes to the log.
    ///
    /// # Errors
    /// See [`InferError`]. An exit status other than 0 is not an error.
    pub async fn run(&self, args: &[String], deadline: Instant) -> Result<i32, InferError> {
        let output = Output::new(self.inner.guest.model.clone(), false);
        self.execute(args, deadline, &output).await
    }

    /// Like [`Model::run`], and what it prints goes to files as it is written. It may keep
    /// its thread waiting for them.
    ///
    /// # Errors
    /// See [`InferError`].
    pub async fn run_streamed(
        &self,
        args: &[String],
        deadline: Instant,
        streams: Streams,
    ) -> Result<i32, InferError> {
        let output = Output::streamed(self.inner.guest.model.clone(), streams);
        self.execute(args, deadline, &output).await
    }

    /// Like [`Model::run`], and return what it printed as well.
    ///
    /// # Errors
    /// See [`InferError`].
    pub async fn run_captured(
        &self,
        args: &[String],
        deadline: Instant,
    ) -> Result<CommandOutput, InferError> {
        let output = Output::new(self.inner.guest.model.clone(), true);
        let status = self.execute(args, deadline, &output).await?;
        let [stdout, stderr] = output.captured();
        Ok(CommandOutput { status, stdout, stderr })
    }

    async fn execute(
        &self,
        args: &[String],
        deadline: Instant,
        output: &Arc<Output>,
    ) -> Result<i32, InferError> {
        let inner = &*self.inner;
        let started = Instant::now();
        let mut argv = vec![self.name().to_owned()];
        argv.extend_from_slice(args);
        let run = async {
            let _slot = inner.engine.slot().await;
            let call = Call { model: inner, output, argv: &argv, started, deadline };
            match &inner.program {
                Some(Program::Command(pre)) => call.component(pre).await,
                Some(Program::Module(pre)) => call.module(pre).await,
                _ => Err(self.wrong_kind("arguments, as a command")),
            }
        };
        let status = within(deadline, started, run).await?;
        output.finish();
        Ok(status)
    }
}

/// One run.
struct Call<'a> {
    model: &'a Inner,
    output: &'a Arc<Output>,
    argv: &'a [String],
    started: Instant,
    deadline: Instant,
}

// === impl Call ===

impl Call<'_> {
    async fn component(&self, pre: &CommandPre<State>) -> Result<i32, InferError> {
        let mut store = self.store(State::new(&self.model.guest, self.output, self.argv))?;
        let ended = async {
            let command = pre.instantiate_async(&mut store).await?;
            let result = command.wasi_cli_run().call_run(&mut store).await?;
            Ok(i32::from(result.is_err()))
        };
        let ended = ended.await;
        self.status(ended, &mut store)
    }

    async fn module(&self, pre: &wasmtime::InstancePre<CoreState>) -> Result<i32, InferError> {
        let mut store = self.store(CoreState::new(&self.model.guest, self.output, self.argv))?;
        let ended = async {
            let instance = pre.instantiate_async(&mut store).await?;
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
            start.call_async(&mut store, ()).await?;
            Ok(0)
        };
        let ended = ended.await;
        self.status(ended, &mut store)
    }

    fn store<T: Limited>(&self, state: wasmtime::Result<T>) -> Result<Store<T>, InferError> {
        let state = state.map_err(|error| InferError::Unavailable(format!("{error:#}")))?;
        Ok(state::store(self.model.engine.wasm(), state, self.deadline))
    }

    fn status<T: Limited>(
        &self,
        ended: wasmtime::Result<i32>,
        store: &mut Store<T>,
    ) -> Result<i32, InferError> {
        ended.or_else(|error| match error.downcast_ref::<I32Exit>() {
            Some(exit) => Ok(exit.0),
            None => Err(failed(
                &self.model.guest.model,
                &error,
                store.data_mut().limits(),
                self.output,
                self.started.elapsed(),
            )),
        })
    }
}
