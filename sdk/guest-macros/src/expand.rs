//! From a function to a handler, as tokens.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned as _;
use syn::{Error, FnArg, Ident, ItemFn, Pat, PatType, Result, Signature, Type};

pub(crate) fn handler(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !attribute.is_empty() {
        return Err(Error::new(attribute.span(), "#[handler] takes no arguments"));
    }
    let not_a_function = |error: Error| {
        Error::new(error.span(), format!("#[handler] belongs on a function: {error}"))
    };
    let function: ItemFn = syn::parse2(item).map_err(not_a_function)?;
    let arguments = check(&function.sig)?;
    let name = &function.sig.ident;
    let takes = arguments.iter().map(|argument| {
        // `r#type` is the input `type`.
        let input = argument.to_string();
        let input = input.trim_start_matches("r#");
        quote!(::wick_guest::Argument::from_request(&mut request, #input)?)
    });
    Ok(quote! {
        #function

        const _: () = {
            fn __wick_answer(
                mut request: ::wick_guest::Request,
            ) -> ::wick_guest::Result<::wick_guest::Response> {
                #name(#(#takes),*)
            }

            // Natively this is only a check of the types.
            const _: fn(
                ::wick_guest::Request,
            ) -> ::wick_guest::Result<::wick_guest::Response> = __wick_answer;

            #[cfg(target_family = "wasm")]
            use ::wick_guest::__private::bindings as __wick;

            #[cfg(target_family = "wasm")]
            struct __WickHandler;

            #[cfg(target_family = "wasm")]
            impl __wick::exports::wick::model::handler::Guest for __WickHandler {
                fn infer(
                    request: __wick::wick::model::types::Request,
                ) -> ::core::result::Result<
                    __wick::wick::model::types::Response,
                    __wick::wick::model::types::Error,
                > {
                    ::wick_guest::__private::answer(request, __wick_answer)
                }
            }

            #[cfg(target_family = "wasm")]
            __wick::export!(__WickHandler with_types_in __wick);
        };
    })
}

/// Refuse what can't be called with one request; return the names of the arguments.
fn check(signature: &Signature) -> Result<Vec<&Ident>> {
    let refuse = |span, why: &str| Err(Error::new(span, why));
    if let Some(keyword) = &signature.asyncness {
        return refuse(
            keyword.span(),
            "a handler is not `async`: calls of graphs return when they are done",
        );
    }
    if let Some(keyword) = &signature.unsafety {
        return refuse(keyword.span(), "a handler is not `unsafe`: the host calls it");
    }
    if let Some(abi) = &signature.abi {
        return refuse(abi.span(), "a handler is not `extern`: the attribute adds the export");
    }
    if !signature.generics.params.is_empty() || signature.generics.where_clause.is_some() {
        return refuse(
            signature.generics.span(),
            "a handler is not generic: the host could not say with which types to call it",
        );
    }
    if signature.inputs.is_empty() {
        return refuse(
            signature.ident.span(),
            "a handler takes the request, or its inputs by name: `fn infer(request: Request)`",
        );
    }
    let arguments: Vec<_> = signature.inputs.iter().map(argument).collect::<Result<_>>()?;
    if arguments.len() > 1
        && let Some((_, request)) = arguments.iter().find(|(_, argument)| is_request(&argument.ty))
    {
        return refuse(
            request.span(),
            "a handler takes either the request or inputs by name, not both",
        );
    }
    Ok(arguments.into_iter().map(|(name, _)| name).collect())
}

fn argument(argument: &FnArg) -> Result<(&Ident, &PatType)> {
    let FnArg::Typed(typed) = argument else {
        return Err(Error::new(argument.span(), "a handler is a free function, without `self`"));
    };
    let Pat::Ident(pattern) = &*typed.pat else {
        return Err(Error::new(
            typed.pat.span(),
            "an argument of a handler is a plain name: the name of the input",
        ));
    };
    Ok((&pattern.ident, typed))
}

/// Whether a type is written `Request`, perhaps with a path.
fn is_request(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == "Request")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(item: TokenStream, message: &str) {
        let error = handler(TokenStream::new(), item).unwrap_err().to_string();
        assert!(error.contains(message), "`{error}` instead of `{message}`");
    }

    #[test]
    fn what_is_not_a_function_is_refused() {
        check_error(
            quote!(
                struct Infer;
            ),
            "#[handler] belongs on a function: expected `fn`",
        );
        check_error(
            quote!(
                const X: u8 = 1;
            ),
            "#[handler] belongs on a function",
        );
        check_error(quote!(), "#[handler] belongs on a function: unexpected end of input");
    }

    #[test]
    fn a_function_that_the_host_cannot_call_is_refused() {
        let result = quote!(Result<Response>);
        let cases = [
            (quote!(async fn f(r: Request) -> #result { todo!() }), "is not `async`"),
            (quote!(unsafe fn f(r: Request) -> #result { todo!() }), "is not `unsafe`"),
            (quote!(extern "C" fn f(r: Request) -> #result { todo!() }), "is not `extern`"),
            (quote!(fn f<T>(r: Request) -> #result { todo!() }), "is not generic"),
            (quote!(fn f<'a>(r: &'a Request) -> #result { todo!() }), "is not generic"),
            (quote!(fn f(r: Request) -> #result where u8: Copy { todo!() }), "is not generic"),
            (quote!(fn f(self) -> #result { todo!() }), "without `self`"),
        ];
        for (item, message) in cases {
            check_error(item, message);
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let result = quote!(Result<Response>);
        let cases = [
            (quote!(fn f() -> #result { todo!() }), "takes the request, or its inputs by name"),
            (quote!(fn f(r: Request, x: Tensor) -> #result { todo!() }), "not both"),
            (quote!(fn f(x: Tensor, r: wick_guest::Request) -> #result { todo!() }), "not both"),
            (quote!(fn f((x, y): Pair) -> #result { todo!() }), "a plain name"),
            (quote!(fn f(_: Tensor) -> #result { todo!() }), "a plain name"),
        ];
        for (item, message) in cases {
            check_error(item, message);
        }
    }

    #[test]
    fn the_attribute_takes_no_arguments() {
        let item = quote!(
            fn f(r: Request) -> Result<Response> {
                todo!()
            }
        );
        let error = handler(quote!(name = "f"), item).unwrap_err();
        assert_eq!(error.to_string(), "#[handler] takes no arguments");
    }

    #[test]
    fn the_function_stays_and_its_arguments_are_taken_by_name() {
        let item = quote! {
            fn infer(image: Tensor, mut r#type: Option<String>) -> Result<Response> { todo!() }
        };
        let expanded = handler(TokenStream::new(), item.clone()).unwrap().to_string();
        assert!(expanded.starts_with(&item.to_string()), "{expanded}");
        for part in
            ["from_request (& mut request , \"image\")", "from_request (& mut request , \"type\")"]
        {
            assert!(expanded.contains(part), "{part} in {expanded}");
        }
    }
}
