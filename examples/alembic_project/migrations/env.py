from models import Base

from forebay.integrations.alembic import run

run(Base.metadata)
