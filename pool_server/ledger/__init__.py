"""Every exchange counted once: usage records, rollups, prices, and what can be asked of them."""

from pool_server.ledger.keys import TABLES
from pool_server.ledger.ledger import Ledger
from pool_server.ledger.prices import Prices

__all__ = ["TABLES", "Ledger", "Prices"]
