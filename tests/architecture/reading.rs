//! Reads one source file: which paths it names, whether in imports, in code or inside a macro's arguments.

use syn::buffer::{Cursor, TokenBuffer};
use syn::visit::{self, Visit};

/// Something a file names or does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mention {
    /// What.
    pub what: What,
    /// Whether it is compiled for tests only.
    pub test: bool,
}

/// What a file names or does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A path; those into our own crate begin with `crate` and are absolute.
    Path(Vec<String>),
    /// A method call, by its name.
    Method(String),
    /// An `async fn`, an `async` block or an `.await`.
    Async,
    /// Something in the crate's root that does more than declare.
    RootCode,
}

/// Everything that the file `src/{path}` mentions.
pub(super) fn mentions(path: &str, text: &str) -> syn::Result<Vec<Mention>> {
    let file = syn::parse_file(text)?;
    let for_tests = is_test_file(path);
    let mut reader = Reader { module: module_of(path), test: for_tests, found: Vec::new() };
    reader.visit_file(&file);
    if path == "lib.rs" {
        let declares = |item: &syn::Item| match item {
            syn::Item::Mod(module) => module.content.is_none(),
            syn::Item::Use(_) | syn::Item::Const(_) => true,
            _ => false,
        };
        if !file.items.iter().all(declares) {
            reader.add(What::RootCode);
        }
    }
    Ok(reader.found)
}

/// Whether the whole file is a layer's own tests: `…/tests.rs` and all below `…/tests/`.
pub(super) fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// `http/auth.rs` is the module `http::auth`, `http/mod.rs` is `http`.
fn module_of(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

struct Reader {
    /// The module that is being read, from the crate's root.
    module: Vec<String>,
    test: bool,
    found: Vec<Mention>,
}

impl Reader {
    fn add(&mut self, what: What) {
        self.found.push(Mention { what, test: self.test });
    }

    /// Notes a path, made absolute where it is one of ours.
    fn path(&mut self, segments: Vec<String>) {
        let ups = segments.iter().take_while(|segment| matches!(segment.as_str(), "super" | "self")).count();
        let supers = segments.iter().take(ups).filter(|segment| *segment == "super").count();
        let absolute = if ups > 0 && (supers > 0 || segments.len() > ups) {
            let base = self.module.len().saturating_sub(supers);
            let home = self.module.iter().take(base).cloned();
            std::iter::once("crate".to_owned()).chain(home).chain(segments.into_iter().skip(ups)).collect()
        } else if segments.first().is_some_and(|first| first == "rtm_bridge") {
            std::iter::once("crate".to_owned()).chain(segments.into_iter().skip(1)).collect()
        } else {
            segments
        };
        self.add(What::Path(absolute));
    }

    fn tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |ident: &syn::Ident| {
            let mut path = prefix.to_vec();
            path.push(ident.to_string());
            path
        };
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.path(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.path(with(&rename.ident)),
            syn::UseTree::Glob(_) => self.path(prefix.to_vec()),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(prefix, tree);
                }
            }
        }
    }

    /// Paths, method calls and `async` among tokens that are not parsed: a macro's arguments.
    fn tokens(&mut self, mut cursor: Cursor<'_>) {
        let mut after_dot = false;
        while !cursor.eof() {
            if let Some((inside, _, _, rest)) = cursor.any_group() {
                self.tokens(inside);
                (cursor, after_dot) = (rest, false);
            } else if let Some((first, mut rest)) = cursor.ident() {
                let mut path = vec![first.to_string()];
                while let Some((segment, next)) = colons(rest).and_then(Cursor::ident) {
                    path.push(segment.to_string());
                    rest = next;
                }
                match path.as_slice() {
                    [word] if word == "async" || (after_dot && word == "await") => self.add(What::Async),
                    [method] if after_dot => self.add(What::Method(method.clone())),
                    _ => self.path(path),
                }
                (cursor, after_dot) = (rest, false);
            } else if let Some((punct, rest)) = cursor.punct() {
                (cursor, after_dot) = (rest, punct.as_char() == '.');
            } else if let Some((_, rest)) = cursor.token_tree() {
                (cursor, after_dot) = (rest, false);
            } else {
                break;
            }
        }
    }

    /// Reads something that carries attributes: under `#[cfg(test)]` it is test code.
    fn guarded(&mut self, attributes: &[syn::Attribute], read: impl FnOnce(&mut Self)) {
        let before = self.test;
        self.test |= attributes.iter().any(is_test_only);
        read(self);
        self.test = before;
    }
}

/// What follows `::`, if that is what comes.
fn colons(cursor: Cursor<'_>) -> Option<Cursor<'_>> {
    let (first, rest) = cursor.punct()?;
    let (second, rest) = rest.punct()?;
    (first.as_char() == ':' && second.as_char() == ':').then_some(rest)
}

/// `#[cfg(test)]`, `#[cfg(all(test, …))]`, `#[test]`.
fn is_test_only(attribute: &syn::Attribute) -> bool {
    fn requires_test(meta: &syn::Meta) -> bool {
        match meta {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) if list.path.is_ident("all") || list.path.is_ident("cfg") => list
                .parse_args_with(syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated)
                .is_ok_and(|inner| inner.iter().any(requires_test)),
            _ => false,
        }
    }
    requires_test(&attribute.meta)
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes: &[syn::Attribute] = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            _ => &[],
        };
        self.guarded(attributes, |reader| visit::visit_item(reader, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.guarded(&item.attrs, |reader| visit::visit_impl_item_fn(reader, item));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.path(vec![item.ident.to_string()]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.add(What::Method(call.method.to_string()));
        visit::visit_expr_method_call(self, call);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if signature.asyncness.is_some() {
            self.add(What::Async);
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, expr: &'ast syn::ExprAsync) {
        self.add(What::Async);
        visit::visit_expr_async(self, expr);
    }

    fn visit_expr_await(&mut self, expr: &'ast syn::ExprAwait) {
        self.add(What::Async);
        visit::visit_expr_await(self, expr);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        visit::visit_macro(self, item);
        self.tokens(TokenBuffer::new2(item.tokens.clone()).begin());
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        visit::visit_meta_list(self, list);
        self.tokens(TokenBuffer::new2(list.tokens.clone()).begin());
    }
}
