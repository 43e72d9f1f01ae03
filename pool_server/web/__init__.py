"""Pages, JSON API and set-up scripts: one route table over the rooms below."""

from pool_server.web.base import Access, BaseHandler, Problem
from pool_server.web.context import WebContext
from pool_server.web.pages import PageHandler
from pool_server.web.routes import TABLE, application, rules

__all__ = ["TABLE", "Access", "BaseHandler", "PageHandler", "Problem", "WebContext", "application", "rules"]
