"""What tokens cost and who may use them: ledger, prices, keys, limits, energy.

None of it needs the engine, and the ledger's page alone needs FastAPI.
"""

from seamount.server.metering.database import default_database
from seamount.server.metering.energy import EnergyMeter
from seamount.server.metering.entry import Entry
from seamount.server.metering.keys import Key, Keys, KeyTerms
from seamount.server.metering.ledger import Ledger
from seamount.server.metering.limit_headers import anthropic_headers, openai_headers
from seamount.server.metering.limits import Lease, Limiter
from seamount.server.metering.money import decimal_of, text_of
from seamount.server.metering.prices import Prices, Rates
from seamount.server.metering.records import Records
from seamount.server.metering.summary import Sums

__all__ = [
    "EnergyMeter",
    "Entry",
    "Key",
    "KeyTerms",
    "Keys",
    "Lease",
    "Ledger",
    "Limiter",
    "Prices",
    "Rates",
    "Records",
    "Sums",
    "anthropic_headers",
    "decimal_of",
    "default_database",
    "openai_headers",
    "text_of",
]
