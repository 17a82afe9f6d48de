//! The attribute of `wick-guest`. Use it from there.

mod expand;

use proc_macro::TokenStream;

/// Makes a function the handler of its package.
///
/// The function takes the whole request, or inputs by the names of its arguments (see
/// `wick_guest::Argument`), and returns `wick_guest::Result<wick_guest::Response>`. It
/// stays an ordinary function that tests may call; for WebAssembly the attribute adds
/// the component's export. A package has one handler.
///
/// ```
/// use wick_guest::{Request, Response, Result, handler};
///
/// #[handler]
/// fn infer(request: Request) -> Result<Response> {
///     Ok(Response::new().output("same", request.input("x")?))
/// }
/// ```
///
/// It is no `async` function: a graph that runs holds no thread of the host.
///
/// ```compile_fail
/// use wick_guest::{Request, Response, Result, handler};
///
/// #[handler]
/// async fn infer(request: Request) -> Result<Response> {
///     Ok(Response::new())
/// }
/// ```
///
/// What it returns is checked natively too:
///
/// ```compile_fail
/// use wick_guest::{Request, Response, handler};
///
/// #[handler]
/// fn infer(request: Request) -> Response {
///     Response::new()
/// }
/// ```
#[proc_macro_attribute]
pub fn handler(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expand::handler(attribute.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
