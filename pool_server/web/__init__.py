"""Pages, JSON API and set-up scripts: one route table over the rooms below."""

from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, BaseHandler, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.routes import TABLE, application, rules

__all__ = ["TABLE", "Access", "BaseHandler", "PageHandler", "ProblemError", "WebContext", "application", "rules"]
