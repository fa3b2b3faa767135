import { expect } from 'chai';
import { PooledTimers } from '../../../common/pooled-timers.ts';
import type { Scheduler } from '../../../common/clock.ts';
import { ManualTime } from '../../support/manual-time.ts';

describe('pooled timers', () => {
  let time: ManualTime;
  let timers: PooledTimers;
  let fired: string[];
  /** Timers that the scheduler behind them was asked for. */
  let set: number;

  const fire = (name: string) => (): void => void fired.push(name);

  beforeEach(() => {
    time = new ManualTime();
    fired = [];
    set = 0;
    const scheduler = time.scheduler();
    const counting: Scheduler = {
      after: (delayMs, task) => {
        set += 1;
        return scheduler.after(delayMs, task);
      },
      soon: (task) => scheduler.soon(task),
    };
    timers = new PooledTimers(time.clock(), counting);
  });

  it('fire when they are due, in their order, and once', async () => {
    timers.after(30, fire('late'));
    timers.after(10, fire('early'));
    timers.after(20, fire('between'));
    await time.advance(9);
    expect(fired).to.deep.equal([]);
    await time.advance(1);
    expect(fired).to.deep.equal(['early']);
    await time.advance(100);
    expect(fired).to.deep.equal(['early', 'between', 'late']);
  });

  it('do not fire when they are cancelled, also by one that fires with them', async () => {
    const first = timers.after(10, fire('cancelled'));
    first.cancel();
    first.cancel();
    timers.after(20, () => {
      fired.push('cancelling');
      second.cancel();
    });
    const second = timers.after(20, fire('cancelled by another'));
    await time.advance(100);
    expect(fired).to.deep.equal(['cancelling']);
  });

  it('go on when a task sets another one', async () => {
    timers.after(10, () => void timers.after(10, fire('set by a task')));
    await time.advance(20);
    expect(fired).to.deep.equal(['set by a task']);
  });

  it('share one timer', async () => {
    for (let index = 0; index < 1000; index += 1) timers.after(1000 + index, fire('one')).cancel();
    timers.after(2500, fire('last'));
    expect(set).to.equal(1);
    await time.advance(2600);
    expect(fired).to.deep.equal(['last']);
    expect(set).to.equal(2);
  });
});
